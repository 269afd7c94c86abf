// Command agent is the only program in the pods of the real node: it keeps a sandbox (pause), answers on ports,
// and dials what it is told to through a Unix socket, so that no NetworkPolicy cuts it off from the harness.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		if err := serve(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	pause()
}

// pause waits for the end, and reaps what is left to the first process of a sandbox.
func pause() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}

// serve answers at addresses ([ADDRESS]:N/TCP or /UDP), and takes orders on a Unix socket.
func serve(socket string, addresses []string) error {
	for _, address := range addresses {
		address, protocol, _ := strings.Cut(address, "/")
		var err error
		if protocol == "UDP" {
			err = echoUDP(address)
		} else {
			err = echoTCP(address)
		}
		if err != nil {
			return err
		}
	}
	orders, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go accept(orders, obey)
	return nil
}

func accept(listener net.Listener, handle func(net.Conn)) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		go handle(connection)
	}
}

func echoTCP(address string) error {
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	go accept(listener, func(connection net.Conn) {
		defer connection.Close()
		io.Copy(connection, connection)
	})
	return nil
}

func echoUDP(address string) error {
	socket, err := net.ListenPacket("udp4", address)
	if err != nil {
		return err
	}
	go func() {
		message := make([]byte, 64)
		for {
			if length, from, err := socket.ReadFrom(message); err == nil {
				socket.WriteTo(message[:length], from)
			}
		}
	}()
	return nil
}

// dial is a connection to try. Mute says that the other end sends nothing back, so that a connection is enough.
type dial struct {
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	From     string `json:"from"`
	Mute     bool   `json:"mute"`
}

// order is one line of the socket. With everyMs each dial is repeated until the other side says a second line.
type order struct {
	Dials     []dial `json:"dials"`
	TimeoutMs int    `json:"timeoutMs"`
	EveryMs   int    `json:"everyMs"`
}

// tried is one attempt: when it began (microseconds of the epoch), and what came of it.
type tried struct {
	At      int64  `json:"at"`
	Outcome string `json:"outcome"`
}

func obey(connection net.Conn) {
	defer connection.Close()
	lines := bufio.NewReaderSize(connection, 1<<20)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return
	}
	var asked order
	if err := json.Unmarshal(line, &asked); err != nil {
		fmt.Fprintf(connection, "%q\n", err.Error())
		return
	}
	end := make(chan struct{})
	if asked.EveryMs > 0 {
		go func() {
			lines.ReadBytes('\n')
			close(end)
		}()
	}
	attempts := make([][]tried, len(asked.Dials))
	var all sync.WaitGroup
	for nth, dial := range asked.Dials {
		all.Go(func() { attempts[nth] = try(dial, asked, end) })
	}
	all.Wait()
	json.NewEncoder(connection).Encode(attempts)
}

// try dials once, or again and again: then the next attempt does not wait for the last.
func try(to dial, asked order, end <-chan struct{}) []tried {
	timeout := time.Duration(asked.TimeoutMs) * time.Millisecond
	once := func() tried {
		began := time.Now()
		return tried{began.UnixMicro(), reach(to, timeout)}
	}
	if asked.EveryMs == 0 {
		return []tried{once()}
	}
	var mutex sync.Mutex
	var all sync.WaitGroup
	attempts := []tried{}
	every := time.NewTicker(time.Duration(asked.EveryMs) * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			all.Go(func() {
				attempt := once()
				mutex.Lock()
				defer mutex.Unlock()
				attempts = append(attempts, attempt)
			})
		case <-end:
			all.Wait()
			return attempts
		}
	}
}

// The port that the next dial leaves from. A port that was used before may still be an established connection to the
// node, which a later denial does not touch: so each is used once, for as long as there are some.
var source atomic.Uint32

func leave(to dial) net.Addr {
	from, port := net.ParseIP(to.From), int(20000+source.Add(1)%40000)
	if to.Protocol == "UDP" {
		return &net.UDPAddr{IP: from, Port: port}
	}
	return &net.TCPAddr{IP: from, Port: port}
}

// reach sends a byte and waits for it to come back: open, refused, or silent, which is what a denial looks like.
func reach(to dial, timeout time.Duration) string {
	deadline := time.Now().Add(timeout)
	var connection net.Conn
	var err error
	for {
		dialer := net.Dialer{Deadline: deadline, LocalAddr: leave(to)}
		connection, err = dialer.Dial(strings.ToLower(to.Protocol)+"4", to.Address)
		if err == nil || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
			break
		}
	}
	if err == nil {
		defer connection.Close()
		connection.SetDeadline(deadline)
		message := []byte{'x'}
		if to.Mute {
			return "open"
		}
		if _, err = connection.Write(message); err == nil {
			_, err = io.ReadFull(connection, message)
		}
	}
	switch problem, ok := err.(net.Error); {
	case err == nil:
		return "open"
	case strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()):
		return "refused"
	case ok && problem.Timeout():
		return "silent"
	default:
		return err.Error()
	}
}
