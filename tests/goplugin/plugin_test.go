package main

import (
	"testing"

	"devnet.builder/goplugin/pluginv1"
)

// The pinned value of the Rust SDK's own test.
func TestDeriveGivesTheBytesOfTheRustSdk(t *testing.T) {
	devnet := &pluginv1.DevnetContext{Seed: "seed", ChainId: "chain-1"}
	want := "a0437b6e6660937d856a728e53b9f10a47eea935cb63c85026732e89d58dad26"
	if got := publicKey(devnet, "validator", 0); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}
