package certwright

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/record"
	"github.com/certwright/certwright/storage"
)

var writeV1 = flag.Bool("v1.write", false, "write testdata/v1.txtar anew, with new keys; then mend the digests in v1Records")

const v1File = "testdata/v1.txtar"

// digest stands for a text in v1Records that is too long to be written there.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// v1Records is what testdata/v1.txtar has to be read as: a body by key, with
// digests in place of PEM texts. Only a new layout may change it.
func v1Records() map[string]any {
	at := func(day, hour int) time.Time { return time.Date(2026, 3, day, hour, 4, 5, 678901234, time.UTC) }
	return map[string]any{
		"v1/certs/ca.example-directory/a.example": &certRecord{
			ID: "a.example", Names: []string{"a.example"}, Issuer: "ca.example-directory", Profile: "century", Stored: at(1, 2),
			Key: "KEY1", Chain: "CHAIN1",
			Data: json.RawMessage(`{"directory":"https://ca.example/directory","account":"https://ca.example/account/1","url":"https://ca.example/cert/1","failed_challenges":["tls-alpn-01"]}`),
		},
		"v1/certs/ca.example-directory/*.b.example+8e7d53adad007d48+rsa2048": &certRecord{
			ID: "*.b.example+8e7d53adad007d48+rsa2048", Names: []string{"*.b.example", "b.example", "192.0.2.7"}, Issuer: "ca.example-directory",
			Stored: at(2, 3), Key: "KEY2", Chain: "CHAIN2",
		},
		"v1/accounts/ca.example-directory/account": &acmeflow.AccountRecord{
			Directory: "https://ca.example/directory", Location: "https://ca.example/account/1",
			Contact: []string{"mailto:admin@example.com"}, EABKeyID: "kid-1", KeyPEM: "KEY3",
		},
		"v1/orders/c.example": &orderRecord{
			Names: []string{"c.example"}, Profile: "century", Created: at(3, 4), Key: "KEY4",
			Issuers: map[string][]byte{"ca.example-directory": []byte(`{"directory":"https://ca.example/directory","account":"https://ca.example/account/1","order":"https://ca.example/order/9"}`)},
		},
		"v1/state/c.example": &stateRecord{
			ID: "c.example", Attempts: 3, Last: at(4, 5), Next: at(4, 6), Error: "ca.example-directory: order: rateLimited (HTTP 429): <slow & steady>",
			Issuers: map[string]issuerState{"ca.example-directory": {Attempts: 3, Next: at(4, 6), Error: "rateLimited"}},
		},
		"v1/staples/a.example":      &stapleRecord{Serial: "4f2a", Raw: []byte{0x30, 0x03, 0x0a, 0x01, 0x06}, Asked: at(5, 6)},
		"v1/renewal-info/a.example": &ariRecord{Serial: "4f2a", Start: at(6, 7), End: at(7, 7), ExplanationURL: "https://ca.example/why?a=1&b=2", Refresh: at(5, 12), Odd: true},
		"v1/cleaned":                &cleanedRecord{At: at(8, 9), Removed: 7},
		"v1/challenges/http-01/c.example/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA": &challenge.Challenge{
			Type: "http-01", Identifier: "c.example", Token: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA",
			KeyAuthorization: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.thumb", Presented: at(9, 10),
		},
	}
}

// v1Digests are the digests of the PEM texts in testdata/v1.txtar.
var v1Digests = map[string]string{
	"CHAIN1": "8019b143f7ce8423",
	"KEY2":   "18179176b244c0e6",
	"CHAIN2": "d1ecd1e0bcc1938c",
	"KEY4":   "59836a7ab774687d",
	"KEY3":   "e4564a3cc82c01f4",
	"KEY1":   "d32e05eb42796b05",
}

// pemFields are the fields of a body that hold PEM.
func pemFields(body any) []*string {
	switch b := body.(type) {
	case *certRecord:
		return []*string{&b.Key, &b.Chain}
	case *acmeflow.AccountRecord:
		return []*string{&b.KeyPEM}
	case *orderRecord:
		return []*string{&b.Key}
	}
	return nil
}

func kindOf(body any) string {
	for _, kind := range []string{kindCertificate, kindAccount, kindOrder, kindState, kindStaple, kindRenewalInfo, kindCleaned} {
		if reflect.TypeOf(body) == reflect.TypeOf(bodyOf(kind)) {
			return kind
		}
	}
	return ""
}

func encodeBody(body any) ([]byte, error) {
	if kind := kindOf(body); kind != "" {
		return record.Encode(kind, body)
	}
	return json.Marshal(body)
}

func decodeBody(value []byte, body any) error {
	if kind := kindOf(body); kind != "" {
		return record.Decode(kind, value, body)
	}
	return json.Unmarshal(value, body)
}

// unpackV1 writes the files of testdata/v1.txtar below dir. A challenge has no
// line feed at its end, which txtar adds.
func unpackV1(t *testing.T, dir string) {
	t.Helper()
	tree, err := txtar.ParseFile(v1File)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tree.Files {
		data := f.Data
		if strings.Contains(f.Name, "/challenges/") {
			data = data[:len(data)-1]
		}
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// treeOf returns the content of every file below dir but locks, by path.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == "locks" {
				return filepath.SkipDir
			}
			return err
		}
		data, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The layout v1 is read as it was written, to the byte, and written so again.
func TestV1IsReadByteForByte(t *testing.T) {
	if *writeV1 {
		writeV1Tree(t)
	}
	path := t.TempDir()
	unpackV1(t, path)
	dir, err := storage.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	want := v1Records()
	keys := slices.DeleteFunc(keysOf(t, dir), func(k string) bool { return strings.HasPrefix(k, "v2/") || k == keyLayout })
	for key, body := range want {
		i := slices.Index(keys, key)
		if i < 0 {
			t.Errorf("%s is not listed", key)
			continue
		}
		keys = slices.Delete(keys, i, i+1)
		value := mustLoad(t, dir, key)
		got := reflect.New(reflect.TypeOf(body).Elem()).Interface()
		if err := decodeBody(value, got); err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		again, err := encodeBody(got)
		if err != nil || string(again) != string(value) {
			t.Errorf("%s is written as\n%s, %v; it was\n%s", key, again, err, value)
		}
		wanted := pemFields(body)
		for i, field := range pemFields(got) {
			*wanted[i], *field = v1Digests[*wanted[i]], digest(*field)
		}
		if !reflect.DeepEqual(got, body) {
			t.Errorf("%s is read as\n%+v, want\n%+v", key, got, body)
		}
	}
	if len(keys) > 0 {
		t.Errorf("keys that nobody expects: %q", keys)
	}
}

// A Manager goes on with a v1 tree: no order for what is there, and a v2 tree
// beside it is not touched.
func TestV1IsGoneOnWith(t *testing.T) {
	path := t.TempDir()
	unpackV1(t, path)
	before := treeOf(t, path)
	dir, err := storage.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	ca, conf := newFake(t, fakeca.Options{BaseURL: "https://ca.example"})
	conf.Issuers[0].(*ACME).Solvers = map[string]Solver{"dns-01": noSolver{}}
	conf.Storage = dir
	m := start(t, conf)
	wild := Spec{Names: []string{"*.b.example", "b.example", "192.0.2.7"}, KeyTypes: []KeyType{RSA2048}}
	if err := m.Manage(t.Context(), Spec{Names: []string{"a.example"}}, wild); err != nil {
		t.Fatal(err)
	}
	if got := certID(wild.Names, RSA2048); got != "*.b.example+8e7d53adad007d48+rsa2048" {
		t.Errorf("the ID of several names is %q", got)
	}
	closeManager(t, m)
	if n := len(ca.Orders()); n != 0 {
		t.Errorf("%d orders were made", n)
	}
	if after := treeOf(t, path); !reflect.DeepEqual(after, before) {
		t.Errorf("the tree has changed")
	}
}

// A storage that only a newer version has written is refused and left alone.
func TestNewerLayoutIsRefused(t *testing.T) {
	layout := func(l ...string) []byte { return mustEncode(t, kindLayout, layoutRecord{Layouts: l}) }
	tests := map[string]struct {
		values map[string][]byte
		want   bool // refused
	}{
		"empty":             {nil, false},
		"v1":                {map[string][]byte{"v1/x/y": nil}, false},
		"v1 and v2":         {map[string][]byte{"v1/x/y": nil, "v2/certs/a": nil}, false},
		"foreign":           {map[string][]byte{"vault/x": nil, "v/x": nil, "v2x/y": nil, "v2": nil}, false},
		"says v2":           {map[string][]byte{keyLayout: layout("v2")}, true},
		"says v1 and v2":    {map[string][]byte{keyLayout: layout("v1", "v2"), "v2/x/y": nil, "v1/x/y": nil}, false},
		"says it newly":     {map[string][]byte{keyLayout: []byte(`{"v":2}`)}, true},
		"says it illegibly": {map[string][]byte{keyLayout: []byte(`<html>`)}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			dir, err := storage.OpenDir(path)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			for _, s := range []Storage{storage.NewMemory(), dir} {
				storeAll(t, s, tt.values)
				before := keysOf(t, s)
				_, conf := newFake(t, fakeca.Options{})
				conf.Storage = s
				m, err := New(conf)
				if err == nil {
					closeManager(t, m)
				}
				var ce *ConfigError
				if refused := err != nil; refused != tt.want {
					t.Errorf("%T: New returns %v", s, err)
				} else if refused && (!errors.As(err, &ce) || ce.Field != "Config.Storage" || !strings.Contains(err.Error(), "newer version")) {
					t.Errorf("%T: the error does not say it: %v", s, err)
				}
				if after := keysOf(t, s); !slices.Equal(after, before) {
					t.Errorf("%T: %q became %q", s, before, after)
				}
			}
		})
	}
}

// A storage that cannot be read when New looks is one that is down for a while.
func TestNewWithStorageDown(t *testing.T) {
	_, conf := newFake(t, fakeca.Options{})
	f := newFaulty(storage.NewMemory())
	f.set(func(call) fault { return fault{err: errors.New("connection refused")} })
	conf.Storage = f
	m := start(t, conf)
	f.set(nil)
	manage(t, m, "a.test")
}

// writeV1Tree makes testdata/v1.txtar.
func writeV1Tree(t *testing.T) {
	t.Helper()
	_, conf := newFake(t, fakeca.Options{BaseURL: "https://ca.example", DefaultLifetime: 100 * 365 * day, Challenges: []string{"dns-01", "http-01"}})
	conf.Issuers[0].(*ACME).Solvers = map[string]Solver{"dns-01": noSolver{}}
	mem := conf.Storage.(*storage.Memory)
	m := start(t, conf)
	wild := Spec{Names: []string{"*.b.example", "b.example", "192.0.2.7"}, KeyTypes: []KeyType{RSA2048}}
	if err := m.Manage(t.Context(), Spec{Names: []string{"a.example"}}, wild, Spec{Names: []string{"d.example"}}); err != nil {
		t.Fatal(err)
	}
	issuer := conf.Issuers[0].ID()
	pems := func(id string) (key, chain string) {
		var r certRecord
		if err := record.Decode(kindCertificate, mustLoad(t, mem, storageKey(keyCerts, issuer, id)), &r); err != nil {
			t.Fatal(err)
		}
		return r.Key, r.Chain
	}
	texts := map[string]string{}
	texts["KEY1"], texts["CHAIN1"] = pems("a.example")
	texts["KEY2"], texts["CHAIN2"] = pems(certID(wild.Names, RSA2048))
	texts["KEY4"], _ = pems("d.example")
	var a acmeflow.AccountRecord
	if err := record.Decode(kindAccount, mustLoad(t, mem, storageKey(keyAccounts, issuer, "account")), &a); err != nil {
		t.Fatal(err)
	}
	texts["KEY3"] = a.KeyPEM
	tree := &txtar.Archive{Comment: []byte("A folder of layout v1, with one of v2 beside it. The keys guard nothing.\n\n")}
	records := v1Records()
	keys := make([]string, 0, len(records))
	for key := range records {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		for _, field := range pemFields(records[key]) {
			*field = texts[*field]
		}
		value, err := encodeBody(records[key])
		if err != nil {
			t.Fatal(err)
		}
		tree.Files = append(tree.Files, txtar.File{Name: strings.ReplaceAll(key, "*", "%2a") + ".rec", Data: value})
	}
	for _, name := range []string{"v2/certs/ca/a.example.rec", "v2/index.rec"} {
		tree.Files = append(tree.Files, txtar.File{Name: name, Data: []byte("{\"v\":2,\"what\":\"nobody knows yet\"}\n")})
	}
	if err := os.WriteFile(v1File, txtar.Format(tree), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range texts {
		t.Logf("%q: %q,", name, digest(text))
	}
}

// noSolver solves what is not looked at.
type noSolver struct{}

func (noSolver) Present(context.Context, Challenge) error { return nil }
func (noSolver) CleanUp(context.Context, Challenge) error { return nil }
