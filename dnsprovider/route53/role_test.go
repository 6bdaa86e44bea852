package route53_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider/internal/providertest"
	"github.com/certwright/certwright/dnsprovider/route53"
)

// serveRole is the metadata service of a machine with a role (IMDSv2). It counts its
// requests, and does not answer while hang is open.
func serveRole(t *testing.T, hang chan struct{}) *atomic.Int32 {
	t.Helper()
	asked := new(atomic.Int32)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-hang
		switch {
		case r.Method == http.MethodPut:
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "600")
			fmt.Fprint(w, "token")
		case strings.HasSuffix(r.URL.Path, "/security-credentials/"):
			fmt.Fprint(w, "role")
		default:
			fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"Expiration":%q}`,
				keyID, secret, session, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		}
	}))
	t.Cleanup(srv.Close)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", srv.URL)
	return asked
}

func TestRoleOfTheMachine(t *testing.T) {
	a := newAPI(hostedZone{"/hostedzone/Z1", "example.com.", false})
	a.serve(t)
	answers := make(chan struct{})
	close(answers)
	asked := serveRole(t, answers)
	newProvider(t, keys)
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests for a role although there are keys", n)
	}
	p := newProvider(t, route53.Config{})
	if asked.Load() == 0 || len(a.log) > 0 {
		t.Errorf("%d requests for the role, %q to Route 53", asked.Load(), a.log)
	}
	if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil {
		t.Error(err)
	}
	wantValues(t, a, "Z1", `"one"`)
}

func TestRoleThatNobodyTells(t *testing.T) {
	isolate(t)
	hang := make(chan struct{})
	serveRole(t, hang)
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := route53.New(ctx, route53.Config{})
	wantError(t, err, "no AWS credentials found")
	if _, ok := errors.AsType[*certwright.ConfigError](err); !ok || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%#v", err)
	}
}
