package bind

import (
	"io"
	"net"
	"sync"
	"time"
)

// forwarder has a secondary answer at an address of its own, which named cannot do:
// it listens only where an interface has an address.
type forwarder struct {
	tcp net.Listener
	udp net.PacketConn
	to  string

	work  sync.WaitGroup
	mu    sync.Mutex // guards conns, ended
	conns map[net.Conn]bool
	ended bool
}

func forward(from, to string) (*forwarder, error) {
	tcp, err := net.Listen("tcp", from)
	if err != nil {
		return nil, errTaken
	}
	udp, err := net.ListenPacket("udp", from)
	if err != nil {
		_ = tcp.Close()
		return nil, errTaken
	}
	f := &forwarder{tcp: tcp, udp: udp, to: to, conns: make(map[net.Conn]bool)}
	f.work.Go(f.serveTCP)
	f.work.Go(f.serveUDP)
	return f, nil
}

// close ends it; more calls do nothing.
func (f *forwarder) close() {
	f.mu.Lock()
	f.ended = true
	_ = f.tcp.Close()
	_ = f.udp.Close()
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.work.Wait()
}

// use runs do with a connection to the secondary, unless it has ended.
func (f *forwarder) use(network string, do func(net.Conn)) {
	c, err := net.DialTimeout(network, f.to, patience)
	if err != nil {
		return
	}
	defer c.Close()
	f.mu.Lock()
	if f.conns[c] = true; f.ended {
		_ = c.Close()
	}
	f.mu.Unlock()
	do(c)
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
}

func (f *forwarder) serveTCP() {
	for {
		in, err := f.tcp.Accept()
		if err != nil {
			return
		}
		f.work.Go(func() {
			defer in.Close()
			f.use("tcp", func(out net.Conn) {
				var back sync.WaitGroup
				back.Go(func() {
					_, _ = io.Copy(in, out)
					_ = in.Close()
				})
				_, _ = io.Copy(out, in)
				_ = out.Close()
				back.Wait()
			})
		})
	}
}

func (f *forwarder) serveUDP() {
	for {
		query := make([]byte, 1<<16)
		n, from, err := f.udp.ReadFrom(query)
		if err != nil {
			return
		}
		f.work.Go(func() {
			f.use("udp", func(out net.Conn) {
				_ = out.SetDeadline(time.Now().Add(patience))
				if _, err := out.Write(query[:n]); err != nil {
					return
				}
				reply := make([]byte, 1<<16)
				if n, err := out.Read(reply); err == nil {
					_, _ = f.udp.WriteTo(reply[:n], from)
				}
			})
		})
	}
}
