package fakeca

import (
	"context"
	"net/http"
)

func (c *CA) directory(_ context.Context, in *call) (*reply, error) {
	meta := map[string]any{
		"termsOfService": in.url("terms"),
		"website":        in.base,
		"caaIdentities":  []string{"ca.test"},
	}
	if c.opt.EAB != nil {
		meta["externalAccountRequired"] = true
	}
	if len(c.opt.Profiles) > 0 {
		profiles := make(map[string]string)
		for name, lifetime := range c.opt.Profiles {
			profiles[name] = "certificates for " + lifetime.String()
		}
		meta["profiles"] = profiles
	}
	dir := map[string]any{
		"newNonce":   in.url("new-nonce"),
		"newAccount": in.url("new-account"),
		"newOrder":   in.url("new-order"),
		"revokeCert": in.url("revoke-cert"),
		"keyChange":  in.url("key-change"),
		"meta":       meta,
	}
	if !c.opt.NoARI {
		dir["renewalInfo"] = in.url("renewal-info")
	}
	return jsonReply(http.StatusOK, dir), nil
}

func (c *CA) newNonce(_ context.Context, in *call) (*reply, error) {
	if in.req.Method == http.MethodGet {
		return newReply(http.StatusNoContent, "", nil), nil
	}
	return newReply(http.StatusOK, "", nil), nil
}
