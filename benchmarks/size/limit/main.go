// The program of ../certwright on net/http alone, with a certificate from
// files: no library that gets certificates makes it smaller.
package main

import (
	"fmt"
	"log"
	"net/http"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	})
	log.Fatal(http.ListenAndServeTLS(":443", "cert.pem", "key.pem", handler))
}
