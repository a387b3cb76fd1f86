package remote

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// peer is one member as the coordinator sees it.
type peer struct {
	id    uint64
	where string // for messages: "node 2", "node 2 on 10.0.0.3:7400"
	*caller
	ctx  context.Context         // ends, with the reason as its cause, when the member does
	fail context.CancelCauseFunc // ends it: the member is of no more use
	end  func() error            // ends the member and returns when nothing of it is left

	advertise func(listening string) string // how others reach a transport that listens there
	told      chan request                  // what the leader's process has the others do
}

// request is one that a member is to be sent.
type request struct {
	method string
	args   any
}

// call is that of the caller, with the peer in every error. When the member ends,
// so does the call. A member that does not answer within d is given up.
func (p *peer) call(ctx context.Context, d time.Duration, method string, args, reply any) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(context.Cause(p.ctx)) })()
	defer time.AfterFunc(d, func() { p.fail(fmt.Errorf("%s: no answer within %v", method, d)) }).Stop()
	err := p.caller.call(ctx, method, args, reply)
	if errors.Is(err, errGone) {
		<-p.ctx.Done() // why it is gone is known a moment later
	}
	if cause := context.Cause(p.ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.where, err)
	}
	return nil
}

// lost reports whether the member has ended.
func (p *peer) lost() bool { return p.ctx.Err() != nil }
