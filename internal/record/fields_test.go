package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// fakeCert has the form and the size of a certificate record.
type fakeCert struct {
	ID      string          `json:"id"`
	Names   []string        `json:"names"`
	Issuer  string          `json:"issuer"`
	Profile string          `json:"profile,omitempty"`
	Stored  time.Time       `json:"stored"`
	Key     string          `json:"key"`
	Chain   string          `json:"chain"`
	Data    json.RawMessage `json:"issuer_data,omitempty"`
}

func fakePEM(label string, size int) string {
	line := strings.Repeat("abcdEFGH01234+/x", 4) + "\n"
	return "-----BEGIN " + label + "-----\n" + strings.Repeat(line, size/len(line)) + "-----END " + label + "-----\n"
}

func certRecord(t testing.TB) []byte {
	t.Helper()
	data := mustEncode(t, fakeCert{
		ID: "www.example.com", Names: []string{"www.example.com", "example.com"}, Issuer: "acme-v02.api.letsencrypt.org-directory",
		Stored: time.Date(2026, 5, 1, 12, 0, 0, 123, time.UTC),
		Key:    fakePEM("PRIVATE KEY", 220), Chain: fakePEM("CERTIFICATE", 1250) + fakePEM("CERTIFICATE", 1250),
		Data: json.RawMessage(`{"order":"https://ca.example/o/1","window":[1,2,{"a":"}\"]"}]}`),
	})
	return data
}

// readFields reads all members, and every string that Unquote reads.
func readFields(body, buf []byte) (fields, text int, ok bool) {
	f := NewFields(body)
	for f.Next() {
		fields++
		switch string(f.Name) {
		case "names":
			names := NewElements(f.Value)
			for names.Next() {
				fields++
			}
			if !names.Whole() {
				return 0, 0, false
			}
		case "id", "key", "chain":
			out, ok := Unquote(f.Value, buf[:0])
			if !ok {
				return 0, 0, false
			}
			text += len(out)
		}
	}
	return fields, text, f.Whole()
}

func TestOpenAndFieldsAllocateNothing(t *testing.T) {
	data := certRecord(t)
	buf := make([]byte, 0, len(data))
	allocs := testing.AllocsPerRun(100, func() {
		body, err := Open("certificate", data)
		if err != nil {
			t.Fatal(err)
		}
		if fields, text, ok := readFields(body, buf); !ok || fields != 9 || text < 2600 {
			t.Fatalf("%d fields and elements, %d bytes of text, %v", fields, text, ok)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations; want none: the record is as Encode writes it", allocs)
	}
}

func TestFieldsOfACertificateRecord(t *testing.T) {
	body, err := Open("certificate", certRecord(t))
	if err != nil {
		t.Fatal(err)
	}
	var want fakeCert
	if err := json.Unmarshal(body, &want); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	f := NewFields(body)
	for f.Next() {
		got[string(f.Name)] = string(f.Value)
		if text, ok := Unquote(f.Value, nil); ok {
			got[string(f.Name)] = string(text)
		}
	}
	if !f.Whole() || f.Next() {
		t.Error("the fields are not read whole")
	}
	stored, err := want.Stored.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"id": want.ID, "names": `["www.example.com","example.com"]`, "issuer": want.Issuer, "stored": string(stored),
		"key": want.Key, "chain": want.Chain, "issuer_data": string(want.Data),
	} {
		if got[name] != want {
			t.Errorf("%s is %q; want %q", name, got[name], want)
		}
	}
}

func TestOpenTakesTheLongWay(t *testing.T) {
	good := string(mustEncode(t, sample))
	body := good[strings.Index(good, `"body":`)+len(`"body":`) : len(good)-2]
	wrap := func(body string) string {
		return fmt.Sprintf("{\"v\":1,\"kind\":\"certificate\",\"sum\":%q,\"body\":%s}\n", sum([]byte(body)), body)
	}
	if wrap(body) != good {
		t.Fatalf("got %s; want %s", wrap(body), good)
	}
	tests := []struct {
		name, in string
		want     error
	}{
		{"as written", good, nil},
		{"no line feed", strings.TrimSpace(good), nil},
		{"two line feeds", good + "\n", nil},
		{"space before the body", strings.Replace(good, `"body":`, `"body": `, 1), nil},
		{"space in front", " " + good, nil},
		{"capital sum", strings.Replace(good, sum([]byte(body)), strings.ToUpper(sum([]byte(body))), 1), ErrDamaged},
		{"the sum of null", wrap("null"), ErrDamaged},
		{"the sum of spaced text", wrap(`[ 1 ]`), ErrDamaged},
		{"a list", wrap(`[1]`), nil},
		{"a byte changed", strings.Replace(good, "example.com", "example.con", 1), ErrDamaged},
		{"other kind of the same length", strings.Replace(good, "certificate", "certificatf", 1), ErrDamaged},
		{"version 2", strings.Replace(good, `"v":1`, `"v":2`, 1), ErrNewer},
	}
	for _, tt := range tests {
		got, err := Open("certificate", []byte(tt.in))
		if tt.want != nil {
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: %v; want %v", tt.name, err, tt.want)
			}
			continue
		}
		if err != nil || len(got) == 0 || got[0] != '[' && string(got) != body {
			t.Errorf("%s: %s, %v", tt.name, got, err)
		}
	}
	// Bodies that are not JSON can have a right sum; Decode finds them out.
	for _, bad := range []string{`{} }`, `{},"more":{}`, `{"a"}`, `{"name":"a` + "\n" + `"}`} {
		if err := Decode("certificate", []byte(wrap(bad)), &fakeBody{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("body %s: %v; want ErrDamaged", bad, err)
		}
	}
	odd := "a\"kind\\ü"
	data, err := Encode(odd, sample)
	if err != nil {
		t.Fatal(err)
	}
	if err := Decode(odd, data, &fakeBody{}); err != nil {
		t.Errorf("a kind that JSON escapes: %v", err)
	}
}

func TestFieldsRefuse(t *testing.T) {
	for _, in := range []string{
		``, `{`, `}`, `null`, `[]`, `{ }`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1 }`, `{"a": 1}`, `{"a" :1}`, `{ "a":1}`,
		`{"a":1}}`, `{"a":1} `, `{a:1}`, `{1:1}`, `{"a\n":1}`, `{"ü":1}`, `{"a":"b}`, `{"a":"b\"}`, `{"a":[1}`, `{"a":[1, 2]}`,
		`{"a":tru}`, `{"a":x}`, `{"a":1"b":2}`, `{"a":"x""b":2}`, `{"a":{}`, `{"a":1,"b"}`, `{"a`,
	} {
		f := NewFields([]byte(in))
		for f.Next() {
		}
		if f.Whole() {
			t.Errorf("%s is read whole", in)
		}
	}
	for _, in := range []string{``, `[`, `{}`, `[1,]`, `[,]`, `[1 ,2]`, `["a]`, `[[1]`} {
		e := NewElements([]byte(in))
		for e.Next() {
		}
		if e.Whole() {
			t.Errorf("%s is read whole", in)
		}
	}
	f, e := NewFields([]byte(`{}`)), NewElements([]byte(`[]`))
	if f.Next() || !f.Whole() || e.Next() || !e.Whole() {
		t.Error("what is empty is not read whole")
	}
}

func TestUnquote(t *testing.T) {
	for raw, want := range map[string]string{
		`""`: "", `"a"`: "a", `"a\nb"`: "a\nb", `"\"\\\/\n\r\t\b\f"`: "\"\\/\n\r\t\b\f", `"\\n"`: `\n`, "\"\x7f\"": "\x7f",
	} {
		got, ok := Unquote([]byte(raw), []byte("x"))
		if !ok || string(got) != "x"+want {
			t.Errorf("%s: %q, %v; want %q", raw, got, ok, want)
		}
	}
	for _, raw := range []string{
		``, `"`, `a`, `"a`, `a"`, `"\"`, `"a"b"`, `"\u0041"`, `"\x"`, `"ü"`, "\"\xff\"", "\"a\nb\"", "\"12345678\x00\"", "\"1234567890\x1f123456\"", `"\`, `1`,
	} {
		if got, ok := Unquote([]byte(raw), []byte("x")); ok || string(got) != "x" {
			t.Errorf("%s: %q, %v; want it refused", raw, got, ok)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"id":"a","names":["a","b\\"],"n":-1.5e3,"t":true,"d":{"x":[{}],"y":"}\""},"e":[]}`))
	f.Add([]byte(`{"a":"\u0041\n\"","b":""}`))
	f.Add([]byte(`[1,{"a":[]},"x"]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fields := NewFields(data)
		var names []string
		values := map[string][]byte{}
		for fields.Next() {
			names = append(names, string(fields.Name))
			values[string(fields.Name)] = fields.Value
			checkUnquote(t, fields.Value)
		}
		var want map[string]json.RawMessage
		if fields.Whole() && json.Unmarshal(data, &want) == nil {
			checkOrder(t, data, names)
			for name, value := range want {
				if !bytes.Equal(values[name], value) {
					t.Fatalf("%q is %q; want %q", name, values[name], value)
				}
			}
		}
		elements := NewElements(data)
		var list []json.RawMessage
		for elements.Next() {
			list = append(list, elements.Value)
		}
		var wantList []json.RawMessage
		if elements.Whole() && json.Unmarshal(data, &wantList) == nil {
			if fmt.Sprintf("%s", list) != fmt.Sprintf("%s", wantList) {
				t.Fatalf("elements %s; want %s", list, wantList)
			}
		}
	})
}

// checkOrder compares the names with those in the order of the text.
func checkOrder(t *testing.T, data []byte, names []string) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		got, err := dec.Token()
		if err != nil || got != name {
			t.Fatalf("the next name is %v, %v; want %q", got, err, name)
		}
		var skipped json.RawMessage
		if err := dec.Decode(&skipped); err != nil {
			t.Fatal(err)
		}
	}
	if dec.More() {
		t.Fatal("a member was passed over")
	}
}

func checkUnquote(t *testing.T, raw []byte) {
	t.Helper()
	var want string
	if got, ok := Unquote(raw, nil); ok && (json.Unmarshal(raw, &want) != nil || string(got) != want) {
		t.Fatalf("Unquote %q = %q; want %q", raw, got, want)
	}
}

func BenchmarkOpenFields(b *testing.B) {
	data := certRecord(b)
	buf := make([]byte, 0, len(data))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		body, err := Open("certificate", data)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, ok := readFields(body, buf); !ok {
			b.Fatal("not read whole")
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	data := certRecord(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var c fakeCert
		if err := Decode("certificate", data, &c); err != nil {
			b.Fatal(err)
		}
	}
}
