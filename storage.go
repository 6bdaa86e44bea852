package certwright

import "github.com/certwright/certwright/storage"

// Storage keeps everything certwright must not lose: see [storage.Storage].
type Storage = storage.Storage
