package cloudflare_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider/cloudflare"
)

func TestConfigErrors(t *testing.T) {
	for name, test := range map[string]struct {
		conf        cloudflare.Config
		field, text string
	}{
		"empty":       {cloudflare.Config{}, "Config.APIToken", "empty"},
		"blank":       {cloudflare.Config{APIToken: " "}, "Config.APIToken", "space"},
		"line break":  {cloudflare.Config{APIToken: marker + "\n"}, "Config.APIToken", "trimmed"},
		"bearer":      {cloudflare.Config{APIToken: "bearer " + marker}, "Config.APIToken", "Bearer"},
		"umlaut":      {cloudflare.Config{APIToken: marker + "ä"}, "Config.APIToken", "character"},
		"zone bearer": {cloudflare.Config{APIToken: marker, ZoneToken: "Bearer " + marker}, "Config.ZoneToken", "Bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cloudflare.New(test.conf)
			wantError(t, err, test.text)
			if e, ok := errors.AsType[*certwright.ConfigError](err); !ok || e.Field != test.field {
				t.Errorf("%#v", err)
			}
		})
	}
}

func TestPrintsNoToken(t *testing.T) {
	conf := cloudflare.Config{APIToken: marker, ZoneToken: zoneMarker}
	p, err := cloudflare.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	if p.String() != "cloudflare" {
		t.Errorf("its name is %q", p)
	}
	for _, v := range []any{conf, &conf, p, []any{conf, p}, struct{ P *cloudflare.Provider }{p}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		if s := fmt.Sprintf("%v %+v %#v %s %q %x %d %s", v, v, v, v, v, v, v, text); strings.Contains(s, "SECRET") || strings.Contains(s, fmt.Sprintf("%x", marker)) {
			t.Errorf("%s", s)
		}
	}
}
