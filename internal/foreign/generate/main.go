// Command generate writes the trees in testdata/adopt: it runs CertMagic,
// autocert and the lego library against a CA that passes for Let's Encrypt and
// issues for 30 years, and packs what they stored. certbot, and the files of the
// lego command, are written as their sources say.
//
//	cd internal/foreign && go run ./generate ../../testdata/adopt
package main

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/go-acme/lego/v5/certcrypto"
	"golang.org/x/tools/txtar"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/foreign"
)

const (
	host  = "acme-v02.api.letsencrypt.org"
	email = "me+tag@Example.com"
	life  = 30 * 365 * 24 * time.Hour
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: generate DIR")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out string) error {
	ca, stop, err := foreign.Fake(host, fakeca.Options{
		DefaultLifetime: life, Backdate: time.Hour,
		Challenges: []string{"http-01", "tls-alpn-01", "dns-01"},
	})
	if err != nil {
		return err
	}
	defer stop()
	trees := map[string]func(dir string) error{
		"certmagic": func(dir string) error {
			return foreign.CertMagic(ctx, ca, dir, email,
				"example.com", "*.example.org", "rsa.example.com", "xn--mnchen-3ya.example.net", "192.0.2.7", "2001:db8::1")
		},
		"autocert": func(dir string) error {
			return foreign.Autocert(ctx, ca, dir, email, "example.com", "www.example.com")
		},
		"lego4": func(dir string) error {
			r, err := foreign.Lego(ctx, ca, email, certcrypto.EC256, []string{"example.com", "www.example.com"}, []string{"2001:db8::1"})
			if err != nil {
				return err
			}
			return r.WriteV4(dir)
		},
		"lego5": func(dir string) error {
			r, err := foreign.Lego(ctx, ca, email, certcrypto.EC384, []string{"example.com", "www.example.com"}, []string{"api.example.org"})
			if err != nil {
				return err
			}
			return r.WriteV5(dir)
		},
		"certbot": func(dir string) error {
			r, err := foreign.Lego(ctx, ca, email, certcrypto.RSA2048, []string{"example.com", "www.example.com"}, []string{"copied.example.org"})
			if err != nil {
				return err
			}
			return r.WriteCertbot(dir, "copied.example.org")
		},
	}
	for name, write := range trees {
		if err := pack(filepath.Join(out, name+".txtar"), write); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// pack writes what write puts into a folder. A link is a file without content
// whose name ends in " -> " and where it leads.
func pack(file string, write func(dir string) error) error {
	dir, err := os.MkdirTemp("", "adopt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := write(dir); err != nil {
		return err
	}
	tree := &txtar.Archive{Comment: []byte("Made by internal/foreign/generate.\n")}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			tree.Files = append(tree.Files, txtar.File{Name: name + " -> " + filepath.ToSlash(target)})
			return err
		}
		data, err := os.ReadFile(path)
		tree.Files = append(tree.Files, txtar.File{Name: name, Data: data})
		return err
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, txtar.Format(tree), 0o644)
}
