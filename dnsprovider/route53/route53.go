// Package route53 writes TXT records at Amazon Route 53, for the Solver of package
// dnsprovider. It is libdns's module for Route 53 with what that leaves out: AWS's
// configuration is checked when the provider is made, the hosted zone is the public
// one, and an error says what to do about it.
package route53

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	awsroute53 "github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/libdns/libdns"
	"github.com/libdns/route53"

	"github.com/certwright/certwright"
)

// Config is how to reach Route 53. What is empty comes from where AWS's own programs
// have it from: the environment, the shared configuration files, or the role of the
// machine. It prints without keys.
type Config struct {
	Region  string // empty: that of AWS's configuration, else us-east-1; Route 53 is the same in all
	Profile string // of the shared configuration files; empty: AWS_PROFILE, else the default one

	// AccessKeyID and SecretAccessKey are a key pair: both or none. SessionToken
	// goes with a temporary pair.
	AccessKeyID, SecretAccessKey, SessionToken string

	// HostedZoneID is the zone to write in, such as "Z0123456789ABC", whatever its
	// name. Empty: it is found by name for each change, among the public ones. It
	// is needed where there are two public zones of one name, and for a private one.
	HostedZoneID string
}

// Format implements [fmt.Formatter]. It prints no key whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	keys := "none"
	if c.AccessKeyID != "" || c.SecretAccessKey != "" || c.SessionToken != "" {
		keys = "set"
	}
	fmt.Fprintf(f, "route53.Config {Region: %q, Profile: %q, keys: %s, HostedZoneID: %q}", c.Region, c.Profile, keys, c.HostedZoneID)
}

// MarshalText is how JSON and log/slog print it: as Format does.
func (c Config) MarshalText() ([]byte, error) { return fmt.Append(nil, c), nil }

const (
	maxAttempts = 7               // the waits between them are 51 seconds at most
	roleTime    = 2 * time.Second // for the machine's role to be found
)

// Provider adds and deletes records at Route 53. It is safe for concurrent use, and
// makes one change at a time, which is as many as Route 53 takes for one zone.
//
// The credentials have to allow route53:ListResourceRecordSets and
// route53:ChangeResourceRecordSets, and route53:ListHostedZonesByName unless there
// is a Config.HostedZoneID.
type Provider struct {
	hostedZone string
	client     *awsroute53.Client
	module     chan *route53.Provider // holds the one when no change is being made
}

// New loads AWS's configuration, and asks Route 53 nothing. When the one source of
// credentials is the role of the machine it is asked for, for 2 seconds at most. The
// error is a [*certwright.ConfigError].
func New(ctx context.Context, c Config) (*Provider, error) {
	c.HostedZoneID = strings.TrimPrefix(c.HostedZoneID, "/hostedzone/")
	if err := c.check(); err != nil {
		return nil, err
	}
	conf, err := load(ctx, c)
	if err != nil {
		return nil, err
	}
	module := &route53.Provider{
		Region: conf.Region, Profile: c.Profile,
		AccessKeyId: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		MaxRetries: maxAttempts, HostedZoneID: "none",
	}
	// At its first call the module loads the configuration too, and ends the process
	// when that fails, as it may do on a file that was changed, or as the context has
	// ended. This call has no records, and so makes no request.
	if _, err := module.DeleteRecords(context.WithoutCancel(ctx), "", nil); err != nil {
		return nil, &certwright.ConfigError{Field: "Config", Err: fmt.Errorf("route53: %w", err)}
	}
	p := &Provider{hostedZone: c.HostedZoneID, client: awsroute53.NewFromConfig(conf), module: make(chan *route53.Provider, 1)}
	p.module <- module
	return p, nil
}

var zoneID = regexp.MustCompile(`^[A-Z0-9]{1,32}$`)

func (c Config) check() error {
	wrong := func(field, text string) error {
		return &certwright.ConfigError{Field: "Config." + field, Err: errors.New("route53: " + text)}
	}
	const unclean = "there is a space, a line break or another character in it that none has; trim it"
	switch {
	case c.AccessKeyID == "" && c.SecretAccessKey != "":
		return wrong("AccessKeyID", "there is a SecretAccessKey without its AccessKeyID; set both, or none")
	case c.AccessKeyID != "" && c.SecretAccessKey == "":
		return wrong("SecretAccessKey", "there is an AccessKeyID without its SecretAccessKey; set both, or none")
	case c.AccessKeyID == "" && c.SessionToken != "":
		return wrong("SessionToken", "there is a SessionToken without the AccessKeyID and SecretAccessKey that it belongs to")
	case unprintable(c.AccessKeyID):
		return wrong("AccessKeyID", unclean)
	case unprintable(c.SecretAccessKey):
		return wrong("SecretAccessKey", unclean)
	case unprintable(c.SessionToken):
		return wrong("SessionToken", unclean)
	case unprintable(c.Region) || strings.ContainsAny(c.Region, "./:@?#"):
		return wrong("Region", fmt.Sprintf("%q is no region; leave it empty", c.Region))
	case c.HostedZoneID != "" && !zoneID.MatchString(c.HostedZoneID):
		return wrong("HostedZoneID", fmt.Sprintf("%q is not the ID of a hosted zone, such as Z0123456789ABC", c.HostedZoneID))
	}
	return nil
}

func unprintable(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// load loads AWS's configuration as the module does.
func load(ctx context.Context, c Config) (aws.Config, error) {
	options := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer { return retry.AddWithMaxAttempts(retry.NewStandard(), maxAttempts) }),
		config.WithRegion(c.Region), config.WithSharedConfigProfile(c.Profile), // empty ones count as none
	}
	if c.AccessKeyID != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)))
	}
	conf, err := config.LoadDefaultConfig(ctx, options...)
	if absent, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		return conf, &certwright.ConfigError{Field: "Config.Profile", Err: fmt.Errorf(
			"route53: there is no profile %q (of Config.Profile or AWS_PROFILE) in AWS's configuration files: %w", absent.Profile, err)}
	}
	if err != nil {
		return conf, &certwright.ConfigError{Field: "Config", Err: fmt.Errorf("route53: loading AWS's configuration (environment and files): %w", err)}
	}
	if conf.Region == "" {
		conf.Region = "us-east-1"
	}
	return conf, findCredentials(ctx, conf.Credentials)
}

// findCredentials says that there are none. Sources that a file or the environment
// names are not asked: a token service may be down for a while.
func findCredentials(ctx context.Context, source aws.CredentialsProvider) error {
	if !aws.IsCredentialsProvider(source, credentials.StaticCredentialsProvider{}) && !aws.IsCredentialsProvider(source, (*ec2rolecreds.Provider)(nil)) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, roleTime)
	defer cancel()
	_, err := source.Retrieve(ctx)
	if err == nil {
		return nil
	}
	half := ""
	if (os.Getenv("AWS_ACCESS_KEY_ID") == "") != (os.Getenv("AWS_SECRET_ACCESS_KEY") == "") {
		half = " (of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY one is empty)"
	}
	return &certwright.ConfigError{Field: "Config.AccessKeyID", Err: fmt.Errorf("route53: no AWS credentials found%s; "+
		"set AccessKeyID and SecretAccessKey, or a Profile, or the same in the environment, or give the machine a role: %w", half, err)}
}

// String is the provider's name.
func (p *Provider) String() string { return "route53" }

// Format implements [fmt.Formatter]. It prints no key whatever the verb.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// AppendRecords adds records to the zone, whose other values stay, and returns them.
// One that is there already is an error. Each call reads all records of the zone: a
// request for each 1,000 of them.
func (p *Provider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, zone, func(ctx context.Context, m *route53.Provider, zone string) ([]libdns.Record, error) {
		out, err := m.AppendRecords(ctx, zone, records)
		return out, p.explain("adding records", zone, err)
	})
}

// DeleteRecords deletes the values of records and returns those that were there.
// Other values of the same names stay. Each call reads all records of the zone, as
// AppendRecords does.
func (p *Provider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, zone, func(ctx context.Context, m *route53.Provider, zone string) ([]libdns.Record, error) {
		out, err := m.DeleteRecords(ctx, zone, records)
		return out, p.explain("deleting records", zone, err)
	})
}

type change func(ctx context.Context, m *route53.Provider, zone string) ([]libdns.Record, error)

func (p *Provider) change(ctx context.Context, zone string, do change) ([]libdns.Record, error) {
	zone = strings.ToLower(strings.TrimSuffix(zone, ".")) + "."
	id, err := p.find(ctx, zone)
	if err != nil {
		return nil, p.explain("finding the hosted zone", zone, err)
	}
	select {
	case m := <-p.module:
		defer func() { p.module <- m }()
		m.HostedZoneID = id
		return do(ctx, m, zone)
	case <-ctx.Done():
		return nil, p.explain("waiting for another change", zone, context.Cause(ctx))
	}
}
