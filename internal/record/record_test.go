package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

type fakeBody struct {
	Name  string            `json:"name"`
	Chain string            `json:"chain"`
	Tags  map[string]string `json:"tags"`
	N     int               `json:"n"`
}

func mustEncode(t testing.TB, body any) []byte {
	t.Helper()
	data, err := Encode("certificate", body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var sample = fakeBody{Name: "example.com", Chain: "-----BEGIN <&>\u2028 -----\r\n", Tags: map[string]string{"b": "ü", "a": "1"}, N: 7}

func TestRoundTrip(t *testing.T) {
	data := mustEncode(t, sample)
	if !json.Valid(data) {
		t.Fatalf("not JSON: %s", data)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, data, "", "\t"); err != nil {
		t.Fatal(err)
	}
	// What any tool that reads and writes JSON in order makes of it.
	var env struct {
		V    int             `json:"v"`
		Kind string          `json:"kind"`
		Sum  string          `json:"sum"`
		Body json.RawMessage `json:"body"`
		More string          `json:"more"`
	}
	if err := json.Unmarshal(data, &env); err != nil {
		t.Fatal(err)
	}
	env.More = "unknown"
	var rewritten bytes.Buffer
	enc := json.NewEncoder(&rewritten)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(env); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{
		"plain":     data,
		"indented":  indented.Bytes(),
		"CRLF":      bytes.ReplaceAll(indented.Bytes(), []byte("\n"), []byte("\r\n")),
		"space":     []byte(" \r\n\t" + string(data) + "\r\n\r\n"),
		"BOM":       append([]byte("\ufeff"), data...),
		"rewritten": rewritten.Bytes(),
	} {
		var got fakeBody
		if err := Decode("certificate", in, &got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, sample) {
			t.Errorf("%s: got %+v; want %+v", name, got, sample)
		}
	}
}

func TestDecodeToleratesUnknownFieldsOfTheBody(t *testing.T) {
	data := mustEncode(t, map[string]any{"name": "example.com", "later": []int{1}})
	var got fakeBody
	if err := Decode("certificate", data, &got); err != nil || got.Name != "example.com" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := string(mustEncode(t, sample))
	tests := []struct {
		name, in string
		want     error
		says     string
	}{
		{"empty", "", ErrDamaged, "empty"},
		{"space", " \r\n", ErrDamaged, "empty"},
		{"zeros", strings.Repeat("\x00", 512), ErrDamaged, "not JSON"},
		{"HTML", "<html><body>502</body></html>", ErrDamaged, "HTML"},
		{"half", good[:len(good)/2], ErrDamaged, "cut short"},
		{"without the last byte", strings.TrimSpace(good)[:len(good)-2], ErrDamaged, "cut short"},
		{"two", good + good, ErrDamaged, "not JSON"},
		{"array", "[1]", ErrDamaged, "JSON"},
		{"null", "null", ErrDamaged, "version"},
		{"other JSON", `{"sans":["example.com"]}`, ErrDamaged, "version"},
		{"version 0", strings.Replace(good, `"v":1`, `"v":0`, 1), ErrDamaged, "version"},
		{"version text", strings.Replace(good, `"v":1`, `"v":"1"`, 1), ErrDamaged, "JSON"},
		{"version 2", strings.Replace(good, `"v":1`, `"v":2`, 1), ErrNewer, "version 2"},
		{"version 2 of another form", `{"v":2,"kind":{},"sum":[]}`, ErrNewer, "version 2"},
		{"kind", strings.Replace(good, "certificate", "account", 1), ErrDamaged, `"account"`},
		{"kind number", strings.Replace(good, `"certificate"`, "7", 1), ErrDamaged, "kind"},
		{"body changed", strings.Replace(good, "example.com", "example.org", 1), ErrDamaged, "checksum"},
		{"sum changed", strings.Replace(good, `"sum":"`, `"sum":"0`, 1), ErrDamaged, "checksum"},
		{"no sum", `{"v":1,"kind":"certificate","body":{}}`, ErrDamaged, "checksum"},
		{"no body", `{"v":1,"kind":"certificate","sum":""}`, ErrDamaged, "body"},
		{"null body", `{"v":1,"kind":"certificate","sum":"","body":null}`, ErrDamaged, "body"},
		{"body of another form", string(mustEncode(t, []int{1})), ErrDamaged, "does not fit"},
		{"too large", good + strings.Repeat(" ", MaxSize), ErrDamaged, "more than"},
	}
	for _, tt := range tests {
		var got fakeBody
		err := Decode("certificate", []byte(tt.in), &got)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want %v that says %q", tt.name, err, tt.want, tt.says)
		}
	}
}

func TestDecodeUnusablePointer(t *testing.T) {
	data := mustEncode(t, sample)
	for _, body := range []any{nil, fakeBody{}, (*fakeBody)(nil)} {
		err := Decode("certificate", data, body)
		if err == nil || errors.Is(err, ErrDamaged) {
			t.Errorf("Decode into %T: %v; want an error that does not blame the record", body, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, body := range map[string]any{
		"nil": nil, "nil pointer": (*fakeBody)(nil), "channel": make(chan int), "too large": strings.Repeat("a", MaxSize),
	} {
		if data, err := Encode("certificate", body); err == nil {
			t.Errorf("%s: %.60s; want an error", name, data)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good := mustEncode(f, sample)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got fakeBody
		err := Decode("certificate", data, &got)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Fatalf("an error without a sentinel: %v", err)
			}
			return
		}
		again := mustEncode(t, got)
		var back fakeBody
		if err := Decode("certificate", again, &back); err != nil || !reflect.DeepEqual(got, back) {
			t.Fatalf("got %+v, then %+v, %v", got, back, err)
		}
	})
}
