package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// stdio is the one connection that a plugin has in its life: stdin and stdout as a net.Conn.
type stdio struct {
	io.Reader
	io.Writer
	once   sync.Once
	closed chan struct{}
}

// Close is called by gRPC when stdin has ended.
func (s *stdio) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *stdio) LocalAddr() net.Addr              { return address{} }
func (s *stdio) RemoteAddr() net.Addr             { return address{} }
func (s *stdio) SetDeadline(time.Time) error      { return nil }
func (s *stdio) SetReadDeadline(time.Time) error  { return nil }
func (s *stdio) SetWriteDeadline(time.Time) error { return nil }

type address struct{}

func (address) Network() string { return "stdio" }
func (address) String() string  { return "stdio" }

// oneConn hands out the connection once, and ends the server when that is over.
type oneConn struct {
	first chan *stdio
	conn  *stdio
}

func newOneConn(conn *stdio) *oneConn {
	first := make(chan *stdio, 1)
	first <- conn
	return &oneConn{first: first, conn: conn}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case conn := <-l.first:
		return conn, nil
	case <-l.conn.closed:
		return nil, io.EOF
	}
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return address{} }
