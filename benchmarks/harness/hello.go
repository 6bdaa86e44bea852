package harness

import (
	"crypto/tls"
	"errors"
	"net"
)

// Hello returns the ClientHello of Go's own TLS client as a server sees it, in
// the middle of a handshake that lasts until release is called. Copies of it may
// have their ServerName changed.
func Hello() (hello *tls.ClientHelloInfo, release func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	server, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	hellos, done := make(chan *tls.ClientHelloInfo), make(chan struct{})
	conf := &tls.Config{
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			hellos <- h
			<-done
			return nil, errors.New("only the ClientHello is wanted")
		},
	}
	go func() { _ = tls.Server(server, conf).Handshake(); _ = server.Close() }()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: "hello.example", NextProtos: conf.NextProtos}).Handshake()
		_ = client.Close()
	}()
	return <-hellos, func() { close(done) }, nil
}
