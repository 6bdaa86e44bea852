package route53

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsroute53 "github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/smithy-go"
)

// find returns the ID of the zone to write in. The module would take whichever comes
// first, and that may be a private one.
func (p *Provider) find(ctx context.Context, zone string) (string, error) {
	if p.hostedZone != "" {
		return p.hostedZone, nil
	}
	var public, private []string
	ask := &awsroute53.ListHostedZonesByNameInput{DNSName: aws.String(zone), MaxItems: aws.Int32(100)}
	for {
		page, err := p.client.ListHostedZonesByName(ctx, ask)
		if err != nil {
			return "", err
		}
		others := false // they come last
		for _, z := range page.HostedZones {
			id := strings.TrimPrefix(aws.ToString(z.Id), "/hostedzone/")
			switch {
			case aws.ToString(z.Name) != zone:
				others = true
			case z.Config != nil && z.Config.PrivateZone:
				private = append(private, id)
			default:
				public = append(public, id)
			}
		}
		if others || !page.IsTruncated || page.NextDNSName == nil {
			return choose(public, private)
		}
		ask.DNSName, ask.HostedZoneId = page.NextDNSName, page.NextHostedZoneId
	}
}

func choose(public, private []string) (string, error) {
	switch {
	case len(public) == 1:
		return public[0], nil
	case len(public) > 1:
		return "", fmt.Errorf("there are %d of this name (%s); set Config.HostedZoneID to the one that its registrar points to", len(public), strings.Join(public, ", "))
	case len(private) > 0:
		return "", fmt.Errorf("there are only private ones of this name (%s), which no public CA sees; if that is meant set Config.HostedZoneID", strings.Join(private, ", "))
	}
	return "", errors.New("there is none of this name for these credentials; are they of the account that has it?")
}

// What to do about Route 53's errors.
var cures = map[string]string{
	"AccessDenied":                "let the credentials' policy allow route53:ListHostedZonesByName, route53:ListResourceRecordSets and route53:ChangeResourceRecordSets for it",
	"InvalidClientTokenId":        "the access key is not there any more, or is one of another AWS partition",
	"SignatureDoesNotMatch":       "the secret access key is not that of the access key ID, or this machine's clock is wrong",
	"ExpiredToken":                "renew the temporary credentials, and make the provider anew if they are in its Config",
	"RequestExpired":              "set this machine's clock",
	"NoSuchHostedZone":            "see whether Config.HostedZoneID is that of a zone of this account",
	"InvalidChangeBatch":          "see whether Config.HostedZoneID, if set, is that of this zone, and whether the name has a CNAME or the very value already",
	"Throttling":                  "Route 53 takes 5 requests a second for an account; others of the account use them up",
	"PriorRequestNotComplete":     "others change the same zone all the time",
	"InvalidInput":                "see whether the name and TTL are ones that Route 53 takes",
	"UnrecognizedClientException": "the access key is not there any more, or is one of another AWS partition",
}

// explain adds to an error where it was and what to do about it.
func (p *Provider) explain(step, zone string, err error) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf("route53: %s in zone %q", step, strings.TrimSuffix(zone, "."))
	if p.hostedZone != "" {
		where += " (" + p.hostedZone + ")"
	}
	said, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return fmt.Errorf("%s: %w", where, err)
	}
	cure := cures[said.ErrorCode()]
	if batch, ok := errors.AsType[*types.InvalidChangeBatch](err); ok && len(batch.Messages) > 0 {
		err = fmt.Errorf("%w (%s)", err, strings.Join(batch.Messages, "; "))
	}
	switch {
	case said.ErrorCode() == "SignatureDoesNotMatch":
		// Its text is all that was signed, a session token too.
		return fmt.Errorf("%s: SignatureDoesNotMatch; %s", where, cure)
	case cure != "":
		return fmt.Errorf("%s: %w; %s", where, err, cure)
	}
	return fmt.Errorf("%s: %w", where, err)
}
