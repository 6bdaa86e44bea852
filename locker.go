package certwright

import "github.com/certwright/certwright/storage"

type (
	// Locker hands out leases: see [storage.Locker].
	Locker = storage.Locker

	// Lease is a held lock that can be lost: see [storage.Lease].
	Lease = storage.Lease
)
