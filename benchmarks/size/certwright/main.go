// The program whose size is compared: an HTTPS server with automatic
// certificates and the redirect on port 80.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/certwright/certwright"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	})
	log.Fatal(certwright.Serve(context.Background(), handler, "example.com"))
}
