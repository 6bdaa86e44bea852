package records_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
)

// file returns a stored bundle and its file.
func file(t testing.TB, ca *fakeCA, names ...string) (*records.Bundle, []byte) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	b := ca.bundle(r, names, nil)
	check(t, r.StoreBundle(t.Context(), records.Stored{Bundle: b, Data: json.RawMessage(`{"a":1}`)}))
	return b, s.get(certKey(b))
}

// loadFile loads what a file holds.
func loadFile(t testing.TB, id string, value []byte) (records.Stored, error) {
	s := newFakeStorage()
	s.put("v1/certs/"+id+".pem", value)
	return records.New(s, records.Options{}).LoadBundle(t.Context(), id, now)
}

func TestBundleFileHasTheFormThatIsWritten(t *testing.T) {
	_, value := file(t, newFakeCA(t), "a.example")
	form := regexp.MustCompile(`^certwright bundle 1 sha256 [0-9a-f]{64} size [0-9]+
\{"names":\["a\.example"\],"key":"p256","ca":"https://ca\.example/directory","account":"ca\.example-directory","id":"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+","not_before":1777593600,"not_after":1785369600,"chain_end":1785369600,"stored":1777597200,"data":\{"a":1\}\}
(-----BEGIN CERTIFICATE-----
[A-Za-z0-9+/=
]+-----END CERTIFICATE-----
){2}-----BEGIN PRIVATE KEY-----
[A-Za-z0-9+/=
]+-----END PRIVATE KEY-----
$`)
	if !form.Match(value) {
		t.Errorf("it is\n%s", value)
	}
}

// TestNoBitOfABundleFileIsLost flips one bit of each byte: what comes back is the
// bundle as it was, or damage is told.
func TestNoBitOfABundleFileIsLost(t *testing.T) {
	ca := newFakeCA(t)
	b, value := file(t, ca, "a.example")
	key, err := b.Certificate()
	check(t, err)
	told, served := 0, 0
	for i := range value {
		changed := slices.Clone(value)
		changed[i] ^= 1 << (i % 7)
		got, err := loadFile(t, b.ID(), changed)
		if err == nil && got.Mended == nil {
			t.Fatalf("byte %d: nobody is told", i)
		}
		var damaged *records.DamagedError
		if err != nil && !errors.As(err, &damaged) && !errors.Is(err, records.ErrNewer) {
			t.Fatalf("byte %d: %v", i, err)
		}
		told++
		if got.Bundle == nil {
			continue
		}
		served++
		cert, certErr := got.Certificate()
		if certErr != nil {
			t.Fatalf("byte %d: it cannot be served: %v", i, certErr)
		}
		if !got.Same(b) || !certpem.Match(cert.Leaf.PublicKey, key.Leaf.PublicKey) || !slices.Equal(got.Names, b.Names) {
			t.Fatalf("byte %d: another bundle", i)
		}
		if err == nil && !slices.EqualFunc(cert.Certificate, key.Certificate, bytes.Equal) {
			t.Fatalf("byte %d: another chain, and nobody is told to replace it", i)
		}
	}
	t.Logf("%d of %d bytes told, %d served all the same", told, len(value), served)
	if served == 0 {
		t.Error("no damage of the first lines was survived")
	}
}

func TestBundleFileThatIsCutShortIsDamaged(t *testing.T) {
	b, value := file(t, newFakeCA(t), "a.example")
	for n := range len(value) - 30 { // without the last line's end it is whole
		got, err := loadFile(t, b.ID(), value[:n])
		var damaged *records.DamagedError
		if !errors.As(err, &damaged) || damaged.Key != certKey(b) || got.Bundle != nil {
			t.Fatalf("%d bytes: %v, %v", n, got.Bundle, err)
		}
	}
}

func TestEditedBundleFileIsServedAndWrittenAnew(t *testing.T) {
	ca := newFakeCA(t)
	b, value := file(t, ca, "a.example", "b.example")
	first, rest, _ := strings.Cut(string(value), "\n")
	header, pemText, _ := strings.Cut(rest, "\n")
	at := strings.Index(pemText, "-----BEGIN PRIVATE")
	chain, key := pemText[:at], pemText[at:]
	tests := []struct{ name, text string }{
		{"first line removed", rest},
		{"header removed", first + "\n" + pemText},
		{"plain PEM", pemText},
		{"plain PEM, key first", key + chain},
		{"plain PEM with the root", chain + string(certpem.EncodeChain(certList(ca.root))) + key},
		{"plain PEM with a stray one", chain + string(certpem.EncodeChain(certList(newFakeCA(t).inter))) + key},
		{"CRLF", strings.ReplaceAll(string(value), "\n", "\r\n")},
		{"byte order mark", "\ufeff" + string(value)},
		{"line at the end", string(value) + "\n"},
		{"line between", first + "\n" + header + "\n# words\n" + pemText},
		{"last line feed removed", strings.TrimSuffix(string(value), "\n")},
		{"header edited", strings.Replace(string(value), "ca.example/directory", "other.example/directory", 1)},
		{"header that is no JSON", strings.Replace(string(value), `"key"`, `"key`, 1)},
		{"first line edited", strings.Replace(string(value), " size ", " bytes ", 1)},
	}
	for _, tt := range tests {
		got, err := loadFile(t, b.ID(), []byte(tt.text))
		if err != nil || got.Mended == nil {
			t.Errorf("%s: %v, mended: %v", tt.name, err, got.Mended)
			continue
		}
		if !got.Same(b) || got.ID() != b.ID() || got.End != b.End || got.NotBefore != b.NotBefore {
			t.Errorf("%s: another bundle", tt.name)
		}
		if lost := !strings.Contains(tt.text, header); (got.CA() == "https://ca.example/directory") == lost {
			t.Errorf("%s: the CA is %q", tt.name, got.CA())
		}
		s := newFakeStorage()
		r := records.New(s, records.Options{})
		check(t, r.StoreBundle(t.Context(), got))
		if again, err := r.LoadBundle(t.Context(), b.ID(), now); err != nil || again.Mended != nil || !again.Same(b) {
			t.Errorf("%s: written anew: %v, mended: %v", tt.name, err, again.Mended)
		}
	}
}

func TestBundleFileThatIsOfNoUseIsDamaged(t *testing.T) {
	ca := newFakeCA(t)
	b, value := file(t, ca, "a.example")
	_, otherValue := file(t, ca, "b.example")
	set, setValue := file(t, ca, "a.example", "c.example")
	_, foreign := file(t, newFakeCA(t), "a.example")
	at := bytes.Index(value, []byte("-----BEGIN PRIVATE"))
	otherAt := bytes.Index(otherValue, []byte("-----BEGIN PRIVATE"))
	second := bytes.LastIndex(value, []byte("-----BEGIN CERT"))
	foreignSecond := bytes.LastIndex(foreign, []byte("-----BEGIN CERT"))
	tests := []struct {
		name, id string
		value    []byte
	}{
		{"empty", b.ID(), nil},
		{"zeros", b.ID(), make([]byte, len(value))},
		{"HTML", b.ID(), []byte("<html></html>")},
		{"key removed", b.ID(), value[:at]},
		{"chain removed", b.ID(), value[at:]},
		{"another's key", b.ID(), slices.Concat(value[:at], otherValue[otherAt:])},
		{"another CA's intermediate", b.ID(), slices.Concat(value[:second], foreign[foreignSecond:bytes.Index(foreign, []byte("-----BEGIN PRIVATE"))], value[at:])},
		{"plain PEM, another CA's intermediate", b.ID(), slices.Concat(value[bytes.Index(value, []byte("-----BEGIN")):second], foreign[foreignSecond:bytes.Index(foreign, []byte("-----BEGIN PRIVATE"))], value[at:])},
		{"another name's", b.ID(), otherValue},
		{"another key type's", records.ID([]string{"a.example"}, certpem.P384), value},
		{"another set's", records.ID([]string{"a.example", "d.example"}, certpem.P256), setValue},
		{"a name of its set", b.ID(), bytes.Replace(otherValue, []byte("b.example"), []byte("a.example"), 1)},
		{"another kind", b.ID(), []byte("certwright order 1 sha256 00 size 0\n")},
	}
	for _, tt := range tests {
		got, err := loadFile(t, tt.id, tt.value)
		var damaged *records.DamagedError
		if got.Bundle != nil || !errors.As(err, &damaged) || damaged.Key != "v1/certs/"+tt.id+".pem" {
			t.Errorf("%s: %v, %v", tt.name, got.Bundle, err)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if got, err := loadFile(t, b.ID(), setValue); err != nil || !got.Same(set) || got.Mended == nil {
		t.Errorf("a certificate with one name more, put there by hand: %v, mended: %v", err, got.Mended)
	}
}

func TestNewerRecordIsServedAndLeftAlone(t *testing.T) {
	ca := newFakeCA(t)
	b, value := file(t, ca, "a.example")
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	newer := bytes.Replace(value, []byte("bundle 1 "), []byte("bundle 2 "), 1)
	s.put(certKey(b), newer)
	got, err := r.LoadBundle(t.Context(), b.ID(), now)
	if !errors.Is(err, records.ErrNewer) || !b.Same(got.Bundle) {
		t.Errorf("LoadBundle: %v, %v", got.Bundle, err)
	}
	s.put("v1/accounts/ca", []byte("certwright account 12 other\n<account/>"))
	if _, err := r.LoadAccount(t.Context(), "ca"); !errors.Is(err, records.ErrNewer) {
		t.Errorf("LoadAccount: %v", err)
	}
	for what, err := range map[string]error{
		"StoreBundle":  r.StoreBundle(t.Context(), records.Stored{Bundle: b}),
		"Delete":       r.Delete(t.Context(), certKey(b)),
		"StoreAccount": r.StoreAccount(t.Context(), "ca", &records.Account{}),
	} {
		if !errors.Is(err, records.ErrNewer) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !bytes.Equal(s.get(certKey(b)), newer) {
		t.Error("it was overwritten")
	}
	s.put(certKey(b), value) // somebody went back
	if _, err := r.LoadBundle(t.Context(), b.ID(), now); err != nil {
		t.Error(err)
	}
	check(t, r.StoreBundle(t.Context(), records.Stored{Bundle: b}))
	delete(s.values, "v1/accounts/ca") // by hand
	if _, err := r.LoadAccount(t.Context(), "ca"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	check(t, r.StoreAccount(t.Context(), "ca", &records.Account{}))
}

// damage is what a sealed storage says.
type damage struct{ is bool }

func (d damage) Error() string { return "cannot be opened" }
func (d damage) Damaged() bool { return d.is }

func TestStorageSaysWhatIsDamage(t *testing.T) {
	own := errors.New("own word for damage")
	tests := []struct {
		err  error
		want bool
	}{
		{damage{true}, true},
		{fmt.Errorf("loading: %w", damage{true}), true},
		{damage{false}, false},
		{fmt.Errorf("loading: %w", own), true},
		{errors.New("cannot be reached"), false},
	}
	for _, tt := range tests {
		s := newFakeStorage()
		r := records.New(s, records.Options{Damage: func(err error) bool { return errors.Is(err, own) }})
		s.fail = func(verb, _ string) error { return map[string]error{"load": tt.err}[verb] }
		var damaged *records.DamagedError
		_, err := r.LoadBundle(t.Context(), "a.example+p256", now)
		if errors.As(err, &damaged) != tt.want || !errors.Is(err, tt.err) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("LoadBundle after %v: %v", tt.err, err)
		}
		_, err = r.LoadAccount(t.Context(), "ca")
		if errors.As(err, &damaged) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("LoadAccount after %v: %v", tt.err, err)
		}
	}
}
