//go:build !unix

package durable

func readFile(path string, limit int64) ([]byte, error) { return readAny(path, limit) }
