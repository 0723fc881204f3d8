// dvb-plugin-gosample is a devnetd plugin in Go: a chain family that makes no blocks, small enough to copy from.
//
// It passes the conformance suite: dvb-conformance dvb-plugin-gosample
package main

import (
	"io"
	"log"
	"os"

	"google.golang.org/grpc"

	"devnet.builder/goplugin/pluginv1"
)

// The largest message in either direction, in bytes; the same at the host.
const maxMessage = 16 << 20

func main() {
	log.SetFlags(0)
	if isTerminal(os.Stdin) || isTerminal(os.Stdout) {
		log.Print("ERROR this is a plugin for devnetd and speaks gRPC on stdin and stdout; devnetd starts it")
		os.Exit(2)
	}
	// stdout belongs to the protocol: a stray fmt.Println must land in the log.
	conn := &stdio{Reader: os.Stdin, Writer: os.Stdout, closed: make(chan struct{})}
	os.Stdout = os.Stderr
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	pluginv1.RegisterPluginServer(server, &plugin{})
	if err := server.Serve(newOneConn(conn)); err != nil && err != io.EOF {
		log.Fatalf("ERROR the connection to devnetd failed: %v", err)
	}
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
