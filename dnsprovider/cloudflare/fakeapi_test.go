package cloudflare_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
)

type record struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	Content string `json:"content"`
	TTL     int    `json:"ttl"`
}

type zone struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
}

// api is the part of Cloudflare's API that is used, as it is published.
type api struct {
	mu      sync.Mutex
	zones   []zone
	records map[string][]record // by zone ID
	next    int
	log     []string // method and path

	// before answers a request, the n-th of its kind, in place of the API; after
	// loses the reply.
	before func(w http.ResponseWriter, r *http.Request, n int) (done bool)
	after  func(r *http.Request, n int) error
}

func newAPI(names ...string) *api {
	a := &api{records: map[string][]record{}}
	for i, name := range names {
		a.zones = append(a.zones, zone{fmt.Sprintf("zone%d", i), name, "active"})
	}
	return a
}

func reply(w http.ResponseWriter, status int, result any, errs ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	list := []map[string]any{}
	for _, e := range errs {
		code, text, _ := strings.Cut(e, " ")
		n, _ := strconv.Atoi(code)
		list = append(list, map[string]any{"code": n, "message": text})
	}
	json.NewEncoder(w).Encode(map[string]any{"result": result, "success": len(errs) == 0, "errors": list, "messages": []any{}})
}

func kind(r *http.Request) string {
	if strings.HasSuffix(r.URL.Path, "/zones") {
		return "ZONE"
	}
	return r.Method
}

func (a *api) count(k string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(a.log), func(s string) bool { return s != k }))
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.log = append(a.log, kind(r))
	a.mu.Unlock()
	if a.before != nil && a.before(w, r, a.count(kind(r))) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/client/v4/zones"), "/")
	if len(path) == 1 {
		found := []zone{}
		for _, z := range a.zones {
			if z.Name == r.URL.Query().Get("name") {
				found = append(found, z)
			}
		}
		reply(w, 200, found)
		return
	}
	i := slices.IndexFunc(a.zones, func(z zone) bool { return z.ID == path[1] })
	if i < 0 {
		reply(w, 404, nil, "7003 Could not route to the zone, perhaps your object identifier is invalid?")
		return
	}
	a.serveRecords(w, r, a.zones[i])
}

func (a *api) serveRecords(w http.ResponseWriter, r *http.Request, z zone) {
	all := a.records[z.ID]
	switch r.Method {
	case http.MethodGet:
		q, found := r.URL.Query(), []record{}
		for _, one := range all {
			if one.Type == q.Get("type") && one.Name == q.Get("name") && strings.Contains(one.Content, q.Get("content.contains")) {
				found = append(found, one)
			}
		}
		reply(w, 200, found[:min(len(found), 100)])
	case http.MethodPost:
		var one record
		if err := json.NewDecoder(r.Body).Decode(&one); err != nil {
			reply(w, 400, nil, "9207 Failed to parse request body")
			return
		}
		one.Name = strings.TrimPrefix(one.Name+"."+z.Name, "@.")
		for _, other := range all {
			if other.Name == one.Name && other.Type == one.Type && other.Content == one.Content {
				reply(w, 400, nil, "81058 An identical record already exists.")
				return
			}
		}
		a.next++
		one.ID = fmt.Sprintf("record%d", a.next)
		a.records[z.ID] = append(all, one)
		reply(w, 200, one)
	case http.MethodDelete:
		id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		i := slices.IndexFunc(all, func(one record) bool { return one.ID == id })
		if i < 0 {
			reply(w, 404, nil, "81044 Record does not exist.")
			return
		}
		a.records[z.ID] = slices.Delete(all, i, i+1)
		reply(w, 200, map[string]string{"id": id})
	}
}

// RoundTrip serves without a socket, so that time can be the bubble's.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if a.after != nil {
		if err := a.after(r, a.count(kind(r))); err != nil {
			return nil, err
		}
	}
	return w.Result(), nil
}

func (a *api) contents() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, list := range a.records {
		for _, r := range list {
			out = append(out, r.Name+" "+r.Content)
		}
	}
	slices.Sort(out)
	return out
}
