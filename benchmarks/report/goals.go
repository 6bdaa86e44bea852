package main

// Columns.
const (
	ours        = "certwright"
	certmagic   = "certmagic"
	autocert    = "autocert"
	limit       = "limit"
	limitParsed = "limit-parsed"
)

// goal is what a row is to reach. The zero goal is none.
type goal struct {
	ratio float64 // at most so many times the limit; 0: not compared with it
	most  float64 // at most, in the row's unit; only when bounded
	// bounded says that most counts, since most may be 0.
	bounded bool
}

func within(ratio float64) goal { return goal{ratio: ratio} }
func atMost(most float64) goal  { return goal{most: most, bounded: true} }

// spec is a row of a table. It is measured under id; a row that waits says why.
type spec struct {
	id    string
	title string
	goal  goal
	waits string
}

// section is a table with what is to be said about it.
type section struct {
	title string
	about string
	rows  []spec
}

const notBuilt = "on-demand: not built yet"

// sections are the tables, with the goals that were set for certwright.
func sections() []section {
	return []section{handshakes(), starts(), memory(), upkeep(), locks(), issuing(), issuingDNS(), sizes()}
}

func handshakes() section {
	return section{
		"Handshakes",
		"`GetCertificate` with 10,000 certificates in memory, asked for all names in random order with the ClientHello of Go's own client. " +
			"10,000 more are for different wildcards. The limit is a plain map behind an atomic pointer and one reading of the clock; for a wildcard and an unknown name with a second look-up, for upper case with `strings.ToLower`. " +
			"The last rows are real TLS 1.3 handshakes over loopback, client and server in one process; their limit is a `tls.Config` with one certificate. " +
			"\"At once\" are 1,000 clients that come together, for a name whose certificate nobody has asked for since the start. " +
			"Strangers are goroutines of the same process that ask every three seconds for validations that nobody has begun, half of them by a handshake and half by a request; their limit is the same without strangers.",
		[]spec{
			{id: "hit", title: "hit, exact name", goal: within(2)},
			{id: "hit-allocs", title: "the same", goal: atMost(0)},
			{id: "hit-2cores", title: "the same from 2 cores at once", goal: within(2)},
			{id: "wildcard", title: "wildcard hit", goal: within(2)},
			{id: "wildcard-allocs", title: "the same", goal: atMost(0)},
			{id: "upper", title: "server name in upper case", goal: within(2)},
			{id: "upper-allocs", title: "the same", goal: atMost(0)},
			{id: "unknown", title: "unknown name", goal: within(2)},
			{id: "unknown-allocs", title: "the same", goal: atMost(0)},
			{id: "ondemand-hit", title: "on-demand hit", waits: notBuilt},
			{id: "tls-burst-p50", title: "1,000 handshakes at once, one cold name, median"},
			{id: "tls-burst-p99", title: "the same, 99 % within"},
			{id: "tls-rate", title: "full handshakes a second of CPU (more is better)"},
			{id: "strangers-slow-p99", title: "handshakes one after another, 99 % within, while 20,000 strangers ask for validations over a storage that takes 500 ms", goal: within(2)},
			{id: "strangers-slow-threads", title: "threads more for that", goal: atMost(32)},
			{id: "strangers-hang-p99", title: "the same over a storage that hangs in the kernel", goal: within(2)},
			{id: "strangers-hang-threads", title: "threads more for that", goal: atMost(32)},
			{id: "ondemand-burst", title: "1,000 handshakes at once for one new name", waits: notBuilt},
		},
	}
}

func starts() section {
	return section{
		"Start",
		"From `New` to a certificate for each name, and to the first one that `GetCertificate` returns for the last of the names, " +
			"each in a process of its own over a folder whose files are in the page cache. autocert loads when it is asked; it is asked for each name in turn. " +
			"The limit reads three files a certificate, as CertMagic stores it, on 2 goroutines and decodes leaf and key without parsing them; in brackets, with `tls.X509KeyPair`. " +
			"For the first certificate it reads and parses that one alone.",
		[]spec{
			{id: "start-ready-1k", title: "1,000 certificates, all ready"},
			{id: "start-ready-10k", title: "10,000 certificates, all ready", goal: within(1)},
			{id: "start-ready-100k", title: "100,000 certificates, all ready"},
			{id: "start-first-1k", title: "1,000 certificates, first served", goal: atMost(20)},
			{id: "start-first-10k", title: "10,000 certificates, first served", goal: atMost(20)},
			{id: "start-first-100k", title: "100,000 certificates, first served", goal: atMost(20)},
		},
	}
}

func memory() section {
	return section{
		"Memory and garbage collection",
		"What the heap grows by with the certificates, names included, by the number of certificates; in a process of its own, " +
			"before and after collecting garbage. \"In use\" is after each name was asked for once. " +
			"The limit holds leaf and key in DER in a map, and the chain once; in brackets, parsed certificates. " +
			"Garbage is collected while 2 goroutines make 600,000 look-ups, most of them for few of the names, and 16 kB of garbage at each; pauses are upper bounds of the runtime's buckets.",
		[]spec{
			{id: "heap-10k", title: "heap a certificate, 10,000 of them", goal: atMost(1400)},
			{id: "heap-100k", title: "heap a certificate, 100,000 of them", goal: atMost(1400)},
			{id: "heap-used-more-10k", title: "what is added in use, 10,000 of them"},
			{id: "alloc-10k", title: "allocated a certificate at the start, 10,000 of them"},
			{id: "alloc-100k", title: "the same, 100,000 of them"},
			{id: "rss-10k", title: "peak memory of the process, 10,000 certificates"},
			{id: "rss-100k", title: "peak memory of the process, 100,000 certificates"},
			{id: "gc-cpu", title: "CPU of garbage collection under load, 100,000 certificates"},
			{id: "gc-cycle", title: "the same, a collection"},
			{id: "gc-pause-p50", title: "pause, median"},
			{id: "gc-pause-p99", title: "pause, 99 % within"},
			{id: "gc-pause-max", title: "pause, longest"},
		},
	}
}

func upkeep() section {
	return section{
		"Upkeep",
		"Certificates of which none is due. CertMagic looks at all of them every 10 minutes: one pass. " +
			"certwright waits for the first that is due: what its process does in 5 seconds. The limit is the same process without a Manager.",
		[]spec{
			{id: "idle-cpu-10k", title: "10,000 certificates, nothing due, CPU", goal: atMost(1)},
			{id: "idle-allocs-10k", title: "the same", goal: atMost(50)},
		},
	}
}

func locks() section {
	return section{
		"Locks between processes",
		"A lock in a folder on a local disk. The limit is a bare flock, which nobody can be told to have lost, and which keeps a folder for as long as its holder is stopped.",
		[]spec{
			{id: "lock-free", title: "free"},
			{id: "lock-handoff", title: "hand-off to a process that waits", goal: atMost(30)},
			{id: "lock-takeover", title: "after kill -9 of the holder", goal: atMost(30)},
		},
	}
}

func issuing() section {
	return section{
		"Issuing",
		"Certificates from Pebble in the same process, without its deliberate delays. The limit is acmez with fast polling over kept connections.",
		[]spec{
			{id: "issue-warm", title: "one certificate, warm", goal: within(1.1)},
			{id: "issue-warm-requests", title: "the same", goal: atMost(8)},
			{id: "issue-200", title: "200 certificates, cold, each", goal: within(1.1)},
			{id: "issue-rtt50", title: "one certificate, 50 ms away", goal: within(1.1)},
		},
	}
}

func issuingDNS() section {
	return section{
		"Issuing by DNS",
		"dns-01 at the same CA, with one libdns provider for all, from the call to the certificate, with no record left. The wildcard's record goes into BIND by dynamic updates, the others' into a server in the process, whose calls take no time by themselves; that server is asked whether a record is shown. " +
			"The limit follows CNAMEs, finds the zone, reads it where the provider can, writes the record, looks for it as often (after 0.5 s, then after twice as long each time), and deletes it beside the rest: 4 calls of the provider and 10 validations at once. It stores nothing. " +
			"100 names are one order, but 100 for CertMagic, 16 at once, which has one name a certificate. " +
			"Of the provider with 5 calls a second, the limit is the time that certwright's own calls take.",
		[]spec{
			{id: "dns-wildcard", title: "one wildcard, warm", goal: within(1.1)},
			{id: "dns-wildcard-requests", title: "the same"},
			{id: "dns-100", title: "100 names, records shown 2 s after they are written", goal: within(1.1)},
			{id: "dns-100-5rps", title: "100 names, a provider of 5 calls a second", goal: within(1.2)},
			{id: "dns-100-5rps-calls", title: "the same"},
		},
	}
}

func sizes() section {
	return section{
		"Size",
		"A stripped program that serves one name over HTTPS. The limit is one on net/http that reads its certificate from a file.",
		[]spec{{id: "size", title: "stripped program", goal: atMost(9.64)}},
	}
}

// growth is what is measured with more and more names.
func growth() []spec {
	return []spec{
		{id: "growth-hit", title: "hit"},
		{id: "growth-start", title: "start, all ready, a name"},
		{id: "growth-install", title: "one more certificate, from storage"},
		{id: "growth-tick", title: "one certificate looked at again"},
		{id: "growth-heap", title: "heap a name"},
		{id: "growth-idle-cpu", title: "5 seconds with nothing due, CPU"},
		{id: "growth-idle-allocs", title: "the same"},
	}
}

func growthSizes() []string { return []string{"1k", "10k", "100k", "1m"} }

const aboutGrowth = "One Manager with more and more names. 100 names share a certificate, so that a million fit and all is measured in the same way; " +
	"storage is in memory. CertMagic's pass, set beside the 5 seconds, is over one certificate for each name. The limit of a hit is such a map and one reading of the clock. A hit and a look again are to stay flat, " +
	"a start and the heap to grow with the names and no faster."
