package remote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Role is what a certificate entitles its holder to.
type Role string

// The roles. A certificate has its role as a DNS name, whatever other names it has.
const (
	RoleAgent       Role = "raftbench-agent"       // serve, and carry messages between nodes
	RoleCoordinator Role = "raftbench-coordinator" // command agents
)

// file is the name of the role's certificate and key without extension.
func (r Role) file() string {
	if r == RoleCoordinator {
		return "coordinator"
	}
	return "agent"
}

// Identity is who a process is towards the others of a run: PEM of its certificate
// and key, and of the authority that signed the certificates of all. Both sides of
// every connection prove theirs (TLS 1.3).
type Identity struct {
	Authority, Certificate, Key []byte
}

// validity of what [InitAuthority] makes.
const validity = 2 * 365 * 24 * time.Hour

// minToken is the shortest token. Whoever reaches an agent can try tokens against
// what it shows of itself, without asking it again, so a token must be random:
// 32 characters of base64 or hexadecimal digits are.
const minToken = 32

// InitAuthority makes an authority and the certificates of both roles in dir, which
// is made if it is not there: ca.crt, ca.key, agent.crt, agent.key, coordinator.crt
// and coordinator.key. hosts are further names and addresses for the agents'
// certificate. Files that are there are never replaced.
func InitAuthority(dir string, hosts []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of the certificates: %w", err)
	}
	for _, name := range []string{"ca", RoleAgent.file(), RoleCoordinator.file()} {
		for _, ext := range []string{".crt", ".key"} {
			if path := filepath.Join(dir, name+ext); exists(path) {
				return fmt.Errorf("%s is there already; name another directory, or remove what is in this one", path)
			}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the authority's key: %w", err)
	}
	now := time.Now()
	ca, err := newAuthority(key, "raftbench", now.Add(-time.Hour), now.Add(validity))
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := writePair(dir, "ca", ca.certificate, keyPEM); err != nil {
		return err
	}
	for _, role := range []Role{RoleAgent, RoleCoordinator} {
		names := hosts
		if role == RoleCoordinator {
			names = nil
		}
		id, err := ca.issue(role, names, now.Add(-time.Hour), now.Add(validity))
		if err != nil {
			return err
		}
		if err := writePair(dir, role.file(), id.Certificate, id.Key); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func writePair(dir, name string, cert, key []byte) error {
	for _, f := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{{name + ".key", key, 0o600}, {name + ".crt", cert, 0o644}} {
		if err := writeNew(filepath.Join(dir, f.path), f.data, f.mode); err != nil {
			return fmt.Errorf("write the certificates: %w", err)
		}
	}
	return nil
}

func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// LoadIdentity reads the identity of a role from a directory that [InitAuthority]
// made, or that has files of the same names: the role must be among the DNS names of
// the certificate.
func LoadIdentity(dir string, role Role) (*Identity, error) {
	id := &Identity{}
	for name, to := range map[string]*[]byte{"ca.crt": &id.Authority, role.file() + ".crt": &id.Certificate, role.file() + ".key": &id.Key} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("read the certificates (raftbench agent --init makes them): %w", err)
		}
		*to = data
	}
	cert, err := id.leaf()
	if err != nil {
		return nil, fmt.Errorf("certificates in %s: %w", dir, err)
	}
	if err := cert.VerifyHostname(string(role)); err != nil {
		return nil, fmt.Errorf("%s does not have the DNS name %s: %w", filepath.Join(dir, role.file()+".crt"), role, err)
	}
	if now := time.Now(); now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return nil, fmt.Errorf("%s is valid from %v to %v", filepath.Join(dir, role.file()+".crt"), cert.NotBefore, cert.NotAfter)
	}
	return id, nil
}

// TokenIdentity makes the identity of a role from a secret that all machines of a
// run have in a file. The token is the seed of an authority's key: who has it can
// make any certificate, and who has not can make none. It never crosses the network.
func TokenIdentity(file string, role Role) (*Identity, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the token: %w", err)
	}
	token := bytes.TrimSpace(data)
	if len(token) < minToken {
		return nil, fmt.Errorf("the token in %s has %d characters: want %d or more, random ones (openssl rand -hex 32)", file, len(token), minToken)
	}
	seed, err := hkdf.Key(sha256.New, token, nil, "raftbench agent authority", ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive a key from the token: %w", err)
	}
	now := time.Now()
	ca, err := newAuthority(ed25519.NewKeyFromSeed(seed), "raftbench token", now.Add(-24*time.Hour), now.Add(validity))
	if err != nil {
		return nil, err
	}
	return ca.issue(role, nil, now.Add(-24*time.Hour), now.Add(validity))
}

// authority signs certificates.
type authority struct {
	key         crypto.Signer
	template    *x509.Certificate
	certificate []byte // PEM
}

func newAuthority(key crypto.Signer, name string, from, to time.Time) (*authority, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	if t, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	return &authority{key, t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// issue makes a certificate, with a key of its own. Agents are clients of each
// other, too.
func (a *authority) issue(role Role, names []string, from, to time.Time) (*Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of %s: %w", role, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("number the certificate of %s: %w", role, err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: string(role)}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames: []string{string(role)},
	}
	if role == RoleAgent {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.template, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of %s: %w", role, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return &Identity{a.certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM}, nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func (id *Identity) leaf() (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(id.Certificate, id.Key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(pair.Certificate[0])
}

// TLS is the configuration of either end of a connection whose other end must prove
// that it has a role.
func (id *Identity) TLS(other Role) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(id.Certificate, id.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(id.Authority) {
		return nil, errors.New("the authority's file holds no certificate")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ServerName: string(RoleAgent),
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return cs.PeerCertificates[0].VerifyHostname(string(other))
		},
		SessionTicketsDisabled: true, // each connection is verified anew
	}, nil
}
