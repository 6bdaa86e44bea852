package records_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
)

// tool returns the path of a program, and skips the test without it, except in
// CI.
func tool(t *testing.T, name string) string {
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}

// files stores a bundle of each key type and returns their files and the root's.
func files(t *testing.T) (paths []string, root string) {
	dir := t.TempDir()
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	ca := newFakeCA(t)
	for _, kt := range keyTypes {
		key := newKey(t, kt)
		names := []string{"a.example"}
		b := ca.make(r, records.NewBundle{Names: names, Key: key, Chain: certpem.EncodeChain(certList(ca.leaf(key, names, nil), ca.inter))})
		store(t, r, b)
		path := filepath.Join(dir, b.ID()+".pem")
		check(t, os.WriteFile(path, s.get(certKey(b)), 0o600))
		paths = append(paths, path)
	}
	root = filepath.Join(dir, "root.pem")
	check(t, os.WriteFile(root, certpem.EncodeChain(certList(ca.root)), 0o600))
	return paths, root
}

func TestOpenSSLReadsABundleFileAsItIs(t *testing.T) {
	openssl := tool(t, "openssl")
	run := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
		if err != nil {
			t.Errorf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	paths, root := files(t)
	for _, path := range paths {
		if pub := run("x509", "-in", path, "-noout", "-pubkey"); pub != run("pkey", "-in", path, "-pubout") {
			t.Errorf("%s: the leaf and the key differ", path)
		}
		at := "1777680000" // a day after the leaf began
		if out := run("verify", "-attime", at, "-CAfile", root, "-untrusted", path, path); !strings.HasSuffix(out, ": OK\n") {
			t.Error(out)
		}
	}
}

func TestNginxReadsABundleFileAsItIs(t *testing.T) {
	nginx := tool(t, "nginx")
	paths, _ := files(t)
	for _, path := range paths {
		dir := t.TempDir()
		conf := filepath.Join(dir, "nginx.conf")
		check(t, os.WriteFile(conf, []byte(`error_log stderr; pid `+dir+`/pid; events {}
http { access_log off; client_body_temp_path `+dir+`; proxy_temp_path `+dir+`; fastcgi_temp_path `+dir+`; uwsgi_temp_path `+dir+`; scgi_temp_path `+dir+`;
server { listen unix:`+dir+`/s ssl; ssl_certificate `+path+`; ssl_certificate_key `+path+`; } }
`), 0o600))
		if out, err := exec.CommandContext(t.Context(), nginx, "-t", "-q", "-p", dir, "-c", conf).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
}
