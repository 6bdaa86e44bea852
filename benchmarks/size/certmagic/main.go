// The program of ../certwright on CertMagic.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/caddyserver/certmagic"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	})
	certmagic.DefaultACME.Agreed = true
	log.Fatal(certmagic.HTTPS([]string{"example.com"}, handler))
}
