package route53_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/dnsprovider/internal/providertest"
	"github.com/certwright/certwright/dnsprovider/route53"
)

var _ dnsprovider.Provider = (*route53.Provider)(nil)

const (
	keyID   = "AKIAHUSHHUSH0000000"
	secret  = "HUSHHUSH/marker+0123456789"
	session = "HUSHHUSH-session-token=="
)

var keys = route53.Config{AccessKeyID: keyID, SecretAccessKey: secret, SessionToken: session}

func newAPI(zones ...hostedZone) *api {
	return &api{zones: zones, sets: map[string][]recordSet{}, page: 100}
}

func newProvider(t *testing.T, c route53.Config) *route53.Provider {
	t.Helper()
	p, err := route53.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantValues(t *testing.T, a *api, id string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := a.values(id, "_acme-challenge.example.com."); !slices.Equal(got, want) {
		t.Errorf("the set has %q, want %q", got, want)
	}
}

// wantError looks for texts in an error, and that no secret is in it.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	providertest.WantError(t, err, []string{"HUSHHUSH"}, texts...)
}

// TestValuesLiveAtOneName has a zone of several pages, and values of others'.
func TestValuesLiveAtOneName(t *testing.T) {
	a := newAPI(hostedZone{"/hostedzone/Z1", "example.com.", false})
	for i := range 5 {
		a.sets["Z1"] = append(a.sets["Z1"], set(fmt.Sprintf("h%d.example.com.", i), "A", "192.0.2.1"))
	}
	foreign := []string{`"foreign \"one\" \344;"`, `"` + strings.Repeat("x", 255) + `" "y"`}
	a.sets["Z1"] = append(a.sets["Z1"], set("_acme-challenge.example.com.", "TXT", foreign...))
	a.page = 2
	a.serve(t)
	p := newProvider(t, keys)
	for _, value := range []string{"one", "two"} {
		if added, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", value)); err != nil || !slices.Equal(added, providertest.Texts("_acme-challenge", value)) {
			t.Fatal(added, err)
		}
	}
	wantValues(t, a, "Z1", append(slices.Clone(foreign), `"one"`, `"two"`)...)
	_, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "two"))
	wantError(t, err, `route53: adding records in zone "example.com"`, "Duplicate Resource Record", "already")
	deleted, err := p.DeleteRecords(t.Context(), "example.com", providertest.Texts("_acme-challenge", "one"))
	if err != nil || len(deleted) != 1 || deleted[0].RR().Data != "one" {
		t.Fatal(deleted, err)
	}
	wantValues(t, a, "Z1", append(slices.Clone(foreign), `"two"`)...)
	if deleted, err := p.DeleteRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "absent")); err != nil || len(deleted) != 0 {
		t.Errorf("deleted %v, %v where nothing is", deleted, err)
	}
	if n := a.count("list"); n != 3*5 {
		t.Errorf("%d pages were read in 5 calls", n)
	}
}

func TestLastValueRemovesTheSet(t *testing.T) {
	a := newAPI(hostedZone{"/hostedzone/Z1", "example.com.", false})
	a.serve(t)
	p := newProvider(t, keys)
	for _, name := range []string{"_acme-challenge", "@"} {
		if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts(name, "one", "two")); err != nil {
			t.Fatal(err)
		}
		if deleted, err := p.DeleteRecords(t.Context(), "example.com.", providertest.Texts(name, "one", "two")); err != nil || len(deleted) != 2 {
			t.Fatal(deleted, err)
		}
	}
	if len(a.sets["Z1"]) != 0 {
		t.Errorf("left: %v", a.sets["Z1"])
	}
}

// TestWritersOfOneNameLoseNothing: Route 53 replaces a set as a whole.
func TestWritersOfOneNameLoseNothing(t *testing.T) {
	a := newAPI(hostedZone{"/hostedzone/Z1", "example.com.", false})
	a.serve(t)
	p := newProvider(t, keys)
	var want []string
	var wg sync.WaitGroup
	for i := range 10 {
		want = append(want, fmt.Sprintf("%q", fmt.Sprint("value", i)))
		wg.Go(func() {
			if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", fmt.Sprint("value", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantValues(t, a, "Z1", want...)
}

func TestZones(t *testing.T) {
	named := func(id, name string, private bool) hostedZone { return hostedZone{"/hostedzone/" + id, name, private} }
	a := newAPI(
		named("Z1", "example.com.", true), named("Z2", "example.com.", true), named("Z3", "example.com.", false),
		named("Z4", "private.example.", true), named("Z5", "twice.example.", false), named("Z6", "twice.example.", false),
	)
	a.serve(t)
	p := newProvider(t, keys)
	if _, err := p.AppendRecords(t.Context(), "Example.com.", providertest.Texts("_acme-challenge", "one")); err != nil {
		t.Fatal(err)
	}
	wantValues(t, a, "Z3", `"one"`)
	wantValues(t, a, "Z1")
	for zone, texts := range map[string][]string{
		"private.example.": {"private", "Z4", "HostedZoneID"}, "twice.example.": {"there are 2", "Z5, Z6", "HostedZoneID"},
		"absent.example.": {`route53: finding the hosted zone in zone "absent.example"`, "there is none", "credentials"},
	} {
		_, err := p.DeleteRecords(t.Context(), zone, providertest.Texts("_acme-challenge", "one"))
		wantError(t, err, texts...)
	}
	asked, fixed := a.count("zones"), keys
	fixed.HostedZoneID = "/hostedzone/Z1"
	p = newProvider(t, fixed)
	if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil || a.count("zones") != asked {
		t.Fatal(err, a.count("zones"))
	}
	wantValues(t, a, "Z1", `"one"`)
	_, err := p.AppendRecords(t.Context(), "other.example.", providertest.Texts("_acme-challenge", "one"))
	wantError(t, err, "not permitted in zone", "Z1", "Config.HostedZoneID")
	fixed.HostedZoneID = "Z404"
	_, err = newProvider(t, fixed).AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one"))
	wantError(t, err, "NoSuchHostedZone", "Z404")
}

func TestRefusals(t *testing.T) {
	a := newAPI(hostedZone{"/hostedzone/Z1", "example.com.", false})
	a.serve(t)
	p := newProvider(t, keys)
	for code, texts := range map[string][]string{
		"AccessDenied":          {"not authorized", "route53:ListHostedZonesByName"},
		"InvalidClientTokenId":  {"access key"},
		"SignatureDoesNotMatch": {"clock"},
		"SomethingNew":          {"SomethingNew", "not authorized"},
	} {
		for _, kind := range []string{"zones", "list", "change"} {
			a.before = func(w http.ResponseWriter, k string, _ int) bool {
				text := "not authorized"
				if code == "SignatureDoesNotMatch" {
					text = "The Canonical String should have been x-amz-security-token:" + session
				}
				if k == kind {
					refuse(w, 403, code, text)
				}
				return k == kind
			}
			_, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one"))
			wantError(t, err, append(texts, `in zone "example.com"`, code)...)
		}
	}
}

// TestTroubleThatPasses has waits of AWS's SDK, of a second on average, side by side.
func TestTroubleThatPasses(t *testing.T) {
	a := newAPI(hostedZone{"/hostedzone/Z1", "example.com.", false})
	a.before = func(w http.ResponseWriter, kind string, n int) bool {
		switch {
		case kind == "zones" && n == 1:
			refuse(w, 400, "Throttling", "Rate exceeded")
		case kind == "change" && n == 1:
			refuse(w, 400, "PriorRequestNotComplete", "The request was rejected because Route 53 was still processing a prior request.")
		default:
			return false
		}
		return true
	}
	a.serve(t)
	fixed := keys
	fixed.HostedZoneID = "Z1"
	var wg sync.WaitGroup
	for _, c := range []route53.Config{keys, fixed} {
		p := newProvider(t, c)
		wg.Go(func() {
			if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge"+c.HostedZoneID, "one")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantValues(t, a, "Z1", `"one"`)
}

func TestContextEnds(t *testing.T) {
	a := newAPI(hostedZone{"/hostedzone/Z1", "example.com.", false})
	hang, reached := make(chan struct{}), make(chan struct{}, 1)
	a.before = func(_ http.ResponseWriter, kind string, _ int) bool {
		if kind == "change" {
			reached <- struct{}{}
			<-hang
		}
		return false
	}
	a.serve(t)
	defer close(hang)
	p := newProvider(t, keys)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 { // one of them waits for the other
		go func() {
			_, err := p.AppendRecords(ctx, "example.com.", providertest.Texts("_acme-challenge", "one"))
			ended <- err
		}()
	}
	<-reached
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for name, test := range map[string]struct {
		conf        route53.Config
		files       string // of AWS's configuration
		env         []string
		field, text string
	}{
		"no credentials":   {field: "Config.AccessKeyID", text: "no AWS credentials found"},
		"no key ID":        {conf: route53.Config{SecretAccessKey: secret}, field: "Config.AccessKeyID", text: "set both"},
		"no secret":        {conf: route53.Config{AccessKeyID: keyID}, field: "Config.SecretAccessKey", text: "set both"},
		"token alone":      {conf: route53.Config{SessionToken: session}, field: "Config.SessionToken", text: "without"},
		"line break":       {conf: route53.Config{AccessKeyID: keyID, SecretAccessKey: secret + "\n"}, field: "Config.SecretAccessKey", text: "trim"},
		"space":            {conf: route53.Config{AccessKeyID: " " + keyID, SecretAccessKey: secret}, field: "Config.AccessKeyID", text: "trim"},
		"region":           {conf: route53.Config{Region: "evil.example/"}, field: "Config.Region", text: "no region"},
		"zone":             {conf: route53.Config{HostedZoneID: "example.com"}, field: "Config.HostedZoneID", text: `"example.com"`},
		"unknown profile":  {conf: route53.Config{Profile: "absent"}, field: "Config.Profile", text: `no profile "absent"`},
		"AWS_PROFILE":      {env: []string{"AWS_PROFILE", "absent"}, field: "Config.Profile", text: `no profile "absent"`},
		"half a profile":   {conf: route53.Config{Profile: "half"}, files: "[profile half]\naws_access_key_id = " + keyID + "\n", field: "Config", text: "partial credentials"},
		"half environment": {env: []string{"AWS_SECRET_ACCESS_KEY", secret}, field: "Config.AccessKeyID", text: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"},
		"bad environment":  {env: []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "nonsense"}, field: "Config", text: "AWS's configuration"},
		"bad file":         {conf: route53.Config{Profile: "p"}, files: "[profile p]\nrole_arn = arn:x\nsource_profile = absent\naws_secret_access_key = " + secret + "\n", field: "Config", text: "AWS's configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t)
			if test.env != nil {
				t.Setenv(test.env[0], test.env[1])
			}
			if err := os.WriteFile(os.Getenv("AWS_CONFIG_FILE"), []byte(test.files), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := route53.New(t.Context(), test.conf)
			wantError(t, err, test.text, "route53: ")
			if e, ok := errors.AsType[*certwright.ConfigError](err); !ok || e.Field != test.field {
				t.Errorf("%#v", err)
			}
		})
	}
}

// TestConfigurationOfAWS has credentials and region from where AWS has them.
func TestConfigurationOfAWS(t *testing.T) {
	a := newAPI(hostedZone{"/hostedzone/Z1", "example.com.", false})
	a.serve(t)
	check := func(t *testing.T, c route53.Config) {
		if _, err := newProvider(t, c).DeleteRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil {
			t.Error(err)
		}
	}
	t.Run("file", func(t *testing.T) {
		text := "[profile p]\nregion = eu-west-1\naws_access_key_id = " + keyID + "\naws_secret_access_key = " + secret + "\n"
		if err := os.WriteFile(os.Getenv("AWS_CONFIG_FILE"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newProvider(t, route53.Config{Profile: "p"})
		// From now on the module must not read it: it would end the process.
		if err := os.WriteFile(os.Getenv("AWS_CONFIG_FILE"), []byte("[profile p]\nsource_profile = absent\nrole_arn = x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil {
			t.Error(err)
		}
	})
	t.Run("environment", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", keyID)
		t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
		check(t, route53.Config{})
	})
	t.Run("ended context", func(t *testing.T) {
		t.Setenv("AWS_DEFAULTS_MODE", "auto")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := route53.New(ctx, keys); err == nil {
			t.Error("no error") // and the process lives
		}
	})
}

func TestPrintsNoKey(t *testing.T) {
	isolate(t)
	p := newProvider(t, keys)
	if p.String() != "route53" {
		t.Errorf("its name is %q", p)
	}
	for _, v := range []any{keys, &keys, p, []any{keys, p}, struct{ P *route53.Provider }{p}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		if s := fmt.Sprintf("%v %+v %#v %s %q %x %d %s", v, v, v, v, v, v, v, text); strings.Contains(s, "HUSHHUSH") || strings.Contains(s, fmt.Sprintf("%x", secret)) {
			t.Errorf("%s", s)
		}
	}
}
