package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/longpole/longpole/setting"
)

// maxFile bounds a file of certificates: a bundle of all public roots has a fifth of it.
const maxFile = 1 << 20

// errOld tells a fault that must not stop a gateway: without the certificate nobody is served at all.
var errOld = errors.New("a certificate that is valid now")

// files reads what a configuration names, and remembers what it saw.
type files struct {
	stamps map[string]string
}

// stamp changes when the file at path may have: a mounted secret is replaced as a whole, through links.
func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "unreadable"
	}
	return fmt.Sprintf("%d %d %v", info.Size(), info.ModTime().UnixNano(), info.Mode())
}

func (f *files) read(path string) ([]byte, error) {
	if f.stamps == nil {
		f.stamps = make(map[string]string)
	}
	f.stamps[path] = stamp(path) // before reading: a change in between is then seen as one
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than 1 MiB", path)
	}
	return data, err
}

// changed reports whether a file that was read is not what it was.
func (f *files) changed() bool {
	for path, seen := range f.stamps {
		if stamp(path) != seen {
			return true
		}
	}
	return false
}

// pair reads a certificate and its key. at is the path of their settings.
func (f *files) pair(p Pair, at string, faults *setting.Faults) (*tls.Certificate, bool) {
	chain, err := f.read(p.Cert)
	if err != nil {
		faults.Check(false, at+"cert", p.Cert, "a file that can be read: "+err.Error())
	}
	key, keyErr := f.read(p.Key)
	if keyErr != nil {
		faults.Check(false, at+"key", p.Key, "a file that can be read: "+keyErr.Error())
	}
	if err != nil || keyErr != nil {
		return nil, false
	}
	if first, _ := pem.Decode(chain); first == nil {
		faults.Check(false, at+"cert", p.Cert, "a PEM certificate")
		return nil, false
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		where, file := at+"cert", p.Cert
		if strings.Contains(err.Error(), "key") {
			where, file = at+"key", p.Key
		}
		faults.Check(false, where, file, "a PEM certificate with its key: "+strings.TrimPrefix(err.Error(), "tls: "))
		return nil, false
	}
	return &cert, true
}

// pool reads the certificates of those who sign.
func (f *files) pool(path, at string, faults *setting.Faults) *x509.CertPool {
	data, err := f.read(path)
	if err != nil {
		faults.Check(false, at, path, "a file that can be read: "+err.Error())
		return nil
	}
	pool := x509.NewCertPool()
	if !bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) || !pool.AppendCertsFromPEM(data) {
		faults.Check(false, at, path, "PEM certificates")
		return nil
	}
	return pool
}

// Check reads the files of c and returns every fault, joined: those that a Server would be refused for, and certificates
// that are not valid at now, for which it would not. Each is a *setting.Error.
func (c ServerConfig) Check(now time.Time) error {
	s, err := NewServer(c, nil)
	if err != nil {
		return err
	}
	var f setting.Faults
	_, paths := c.pairs()
	for i, cert := range s.certificates {
		valid(cert.Leaf, paths[i]+"cert", cert.file, now, &f)
	}
	if c.ACME != nil && c.ACME.Root != "" {
		new(files).pool(c.ACME.Root, "acme.root", &f)
	}
	return f.Err()
}

// Check reads the files of c and returns every fault, as ServerConfig.Check does.
func (c ClientConfig) Check(now time.Time) error {
	x, err := NewClient(c)
	if err != nil {
		return err
	}
	var f setting.Faults
	if x.certificate != nil {
		valid(x.certificate.Leaf, "cert", c.Cert, now, &f)
	}
	return f.Err()
}

func valid(leaf *x509.Certificate, at, file string, now time.Time, f *setting.Faults) {
	f.Check(!now.After(leaf.NotAfter), at, file, fmt.Sprintf("%v; it expired at %s", errOld, leaf.NotAfter.UTC().Format(time.RFC3339)))
	f.Check(!now.Before(leaf.NotBefore), at, file, fmt.Sprintf("%v; it begins at %s", errOld, leaf.NotBefore.UTC().Format(time.RFC3339)))
}
