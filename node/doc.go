// Package node drives a raft log over interchangeable storage and transport.
//
// It is the loop of etcd's raftNode.start, step by step, with the storage and
// the transport as parameters, so that a difference between two measurements is
// a difference between two backends. The package does not know that it is being
// measured: what is under the loop is observed through decorators around
// backends.Storage, [StateMachine] and [Network], and through [Trace].
//
// The data flows one way:
//
//	Propose ──▶ raft ──Ready──▶ loop ──Send──▶ Transport ──▶ other nodes
//	                             │ └──Save, SaveSnap, Sync, Release──▶ Storage
//	                             ▼
//	                        apply side ──▶ StateMachine ──Snapshot──▶ Storage
//
// loop.go holds the loop of the synchronous kind, async.go the one that uses
// raft's AsyncStorageWrites; apply.go is the other side of the apply channel;
// rawnode.go drives raft without a goroutine of its own; snapshot.go creates
// snapshots and compacts; propose.go gathers proposals;
// read.go serves linearizable reads; messages.go decides what is sent.
//
// A storage that fails stops its node with the error (fail-stop): the node
// acknowledges nothing after it, and [Node.Err] says what happened.
package node
