package adopt

import "context"

// autocert reads the folder of golang.org/x/crypto/acme/autocert's DirCache:
//
//	<name>            ECDSA key and chain in one file
//	<name>+rsa        the same with an RSA key
//	acme_account+key  the account's key; acme_account.key when it is old
//
// It does not say at which CA they were made.
type autocert struct {
	*files
	ca string
}

// Certificates implements Reader. autocert knows no wildcards and one name a
// certificate.
func (a *autocert) Certificates(ctx context.Context, q Query) (certs []Certificate, errs []*FileError) {
	if len(q.Names) != 1 {
		return nil, nil
	}
	for _, file := range []string{q.Names[0], q.Names[0] + "+rsa"} {
		value, bad := a.load(ctx, file)
		if bad == nil && value == nil {
			continue
		}
		var cert Certificate
		if bad == nil {
			cert, bad = pair{chainFile: file, chain: value, keyFile: file, key: value}.read(q)
		}
		if bad != nil {
			errs = append(errs, bad)
			continue
		}
		cert.CA = a.ca
		if bad = cert.origin(q, ""); bad != nil {
			errs = append(errs, bad)
			continue
		}
		certs = append(certs, cert)
	}
	sortBest(certs, q)
	return certs, errs
}

// Accounts implements Reader.
func (a *autocert) Accounts(ctx context.Context, ca string) (accounts []Account, errs []*FileError) {
	if !sameCA(ca, a.ca) {
		return nil, nil
	}
	for _, file := range []string{"acme_account+key", "acme_account.key"} {
		acct, bad := a.accountKey(ctx, file)
		switch {
		case bad != nil:
			errs = append(errs, bad)
		case acct.Key != nil:
			acct.CA = ca
			accounts = append(accounts, acct)
		}
	}
	return accounts, errs
}
