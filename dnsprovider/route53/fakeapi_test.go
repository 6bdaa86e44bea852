package route53_test

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const namespace = "https://route53.amazonaws.com/doc/2013-04-01/"

type hostedZone struct {
	ID      string `xml:"Id"`
	Name    string
	Private bool `xml:"Config>PrivateZone"`
}

type recordSet struct {
	Name, Type string
	TTL        int
	Values     []value `xml:"ResourceRecords>ResourceRecord"`
}

type value struct{ Value string }

func set(name, kind string, values ...string) recordSet {
	s := recordSet{Name: name, Type: kind, TTL: 60}
	for _, v := range values {
		s.Values = append(s.Values, value{v})
	}
	return s
}

func (s recordSet) sorted() (out []string) {
	for _, v := range s.Values {
		out = append(out, v.Value)
	}
	slices.Sort(out)
	return out
}

// api is the part of Route 53's API that is used, as it is published.
type api struct {
	mu    sync.Mutex
	zones []hostedZone           // those of one name side by side
	sets  map[string][]recordSet // by zone ID, in order
	page  int                    // sets of records a page
	log   []string

	// before answers a request, the n-th of its kind, in place of the API.
	before func(w http.ResponseWriter, kind string, n int) (done bool)
}

// serve serves the API until the test ends, and keeps AWS's SDK from all else.
func (a *api) serve(t *testing.T) {
	t.Helper()
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	isolate(t)
	t.Setenv("AWS_ENDPOINT_URL_ROUTE_53", srv.URL)
}

// isolate keeps the machine's own configuration out.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_ENDPOINT_URL", "HTTP_PROXY", "http_proxy",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/config")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/credentials")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	xml.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<ErrorResponse xmlns=%q><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>`,
		namespace, code, text)
}

func refuseBatch(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(400)
	fmt.Fprintf(w, `<InvalidChangeBatch xmlns=%q><Messages><Message>%s</Message></Messages><RequestId>1</RequestId></InvalidChangeBatch>`, namespace, text)
}

func (a *api) count(kind string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(a.log), func(s string) bool { return s != kind }))
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/2013-04-01/"), "/")
	kind := map[string]string{"hostedzonesbynameGET": "zones", "hostedzoneGET": "list", "hostedzonePOST": "change"}[path[0]+r.Method]
	a.mu.Lock()
	a.log = append(a.log, kind)
	a.mu.Unlock()
	if a.before != nil && a.before(w, kind, a.count(kind)) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if kind == "zones" {
		a.listZones(w, r)
		return
	}
	if !slices.ContainsFunc(a.zones, func(z hostedZone) bool { return z.ID == "/hostedzone/"+path[1] }) {
		refuse(w, 404, "NoSuchHostedZone", "No hosted zone found with ID: "+path[1])
		return
	}
	if kind == "list" {
		a.listSets(w, r, path[1])
	} else {
		a.changeSets(w, r, path[1])
	}
}

func (a *api) listZones(w http.ResponseWriter, r *http.Request) {
	var out struct {
		XMLName          xml.Name     `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ListHostedZonesByNameResponse"`
		HostedZones      []hostedZone `xml:"HostedZones>HostedZone"`
		IsTruncated      bool
		MaxItems         int
		NextDNSName      string `xml:",omitempty"`
		NextHostedZoneID string `xml:"NextHostedZoneId,omitempty"`
	}
	q := r.URL.Query()
	out.MaxItems, _ = strconv.Atoi(q.Get("maxitems"))
	i := slices.IndexFunc(a.zones, func(z hostedZone) bool {
		return z.Name >= q.Get("dnsname") && (q.Get("hostedzoneid") == "" || z.ID == "/hostedzone/"+q.Get("hostedzoneid"))
	})
	if i < 0 {
		i = len(a.zones)
	}
	out.HostedZones = a.zones[i:]
	if n := min(out.MaxItems, 2); len(out.HostedZones) > n { // a page is never full
		out.NextDNSName, out.NextHostedZoneID = out.HostedZones[n].Name, strings.TrimPrefix(out.HostedZones[n].ID, "/hostedzone/")
		out.HostedZones, out.IsTruncated = out.HostedZones[:n], true
	}
	write(w, 200, out)
}

func (a *api) listSets(w http.ResponseWriter, r *http.Request, id string) {
	var out struct {
		XMLName        xml.Name    `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ListResourceRecordSetsResponse"`
		Sets           []recordSet `xml:"ResourceRecordSets>ResourceRecordSet"`
		IsTruncated    bool
		MaxItems       int
		NextRecordName string `xml:",omitempty"`
		NextRecordType string `xml:",omitempty"`
	}
	q, sets := r.URL.Query(), a.sets[id]
	i := max(0, slices.IndexFunc(sets, func(s recordSet) bool { return s.Name == q.Get("name") && s.Type == q.Get("type") }))
	out.Sets, out.MaxItems = sets[i:], a.page
	if len(out.Sets) > a.page {
		out.NextRecordName, out.NextRecordType, out.IsTruncated = out.Sets[a.page].Name, out.Sets[a.page].Type, true
		out.Sets = out.Sets[:a.page]
	}
	write(w, 200, out)
}

func (a *api) changeSets(w http.ResponseWriter, r *http.Request, id string) {
	var in struct {
		Changes []struct {
			Action string
			Set    recordSet `xml:"ResourceRecordSet"`
		} `xml:"ChangeBatch>Changes>Change"`
	}
	if err := xml.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Changes) != 1 {
		refuse(w, 400, "InvalidInput", "Invalid XML")
		return
	}
	c := in.Changes[0]
	zone := a.zones[slices.IndexFunc(a.zones, func(z hostedZone) bool { return z.ID == "/hostedzone/"+id })].Name
	if c.Set.Name != zone && !strings.HasSuffix(c.Set.Name, "."+zone) {
		refuseBatch(w, fmt.Sprintf("RRSet with DNS name %s is not permitted in zone %s", c.Set.Name, zone))
		return
	}
	i := slices.IndexFunc(a.sets[id], func(s recordSet) bool { return s.Name == c.Set.Name && s.Type == c.Set.Type })
	switch {
	case len(slices.Compact(c.Set.sorted())) != len(c.Set.Values):
		refuseBatch(w, "Duplicate Resource Record")
		return
	case c.Action == "DELETE" && (i < 0 || !slices.Equal(a.sets[id][i].Values, c.Set.Values) || a.sets[id][i].TTL != c.Set.TTL):
		refuseBatch(w, "Tried to delete resource record set but it was not found")
		return
	case c.Action == "DELETE":
		a.sets[id] = slices.Delete(a.sets[id], i, i+1)
	case i < 0:
		a.sets[id] = append(a.sets[id], c.Set)
	default:
		a.sets[id][i] = c.Set
	}
	fmt.Fprintf(w, `<ChangeResourceRecordSetsResponse xmlns=%q><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>`, namespace)
}

// values are those of the TXT set, sorted.
func (a *api) values(id, name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.sets[id] {
		if s.Name == name && s.Type == "TXT" {
			return s.sorted()
		}
	}
	return nil
}
