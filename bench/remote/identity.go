package remote

// Identity is who a process is towards the others of a run: PEM of its certificate
// and key, and of the authority that signed the certificates of all.
type Identity struct {
	Authority, Certificate, Key []byte
}
