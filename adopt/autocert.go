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
	directory string
}

// pairs implements layout. autocert knows no wildcards and one name a
// certificate.
func (a *autocert) pairs(ctx context.Context, names []string) (found []candidate, errs []error) {
	if len(names) != 1 {
		return nil, nil
	}
	for _, file := range []string{names[0], names[0] + "+rsa"} {
		c, err := a.read(ctx, place{chain: file, key: file}, names)
		if err == nil && c != nil {
			c.CA = a.directory
			err = c.origin()
		}
		if err == nil && c != nil {
			found = append(found, *c)
		}
		errs = append(errs, err)
	}
	return found, errs
}

// accounts implements layout.
func (a *autocert) accounts(ctx context.Context, directory string) (accounts []Account, errs []error) {
	if !sameCA(directory, a.directory) {
		return nil, nil
	}
	for _, file := range []string{"acme_account+key", "acme_account.key"} {
		acct, err := a.accountKey(ctx, file)
		if acct.KeyPEM != "" {
			accounts = append(accounts, acct)
		}
		errs = append(errs, err)
	}
	return accounts, errs
}
