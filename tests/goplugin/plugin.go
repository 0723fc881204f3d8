package main

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"devnet.builder/goplugin/pluginv1"
)

const (
	apiVersion = 1
	nodeBinary = "/bin/sleep"
	signState  = "data/sign_state.json"
)

// plugin answers each call from its request and the files named in it; it keeps nothing between calls.
// What it does not define is answered with UNIMPLEMENTED by the embedded type.
type plugin struct {
	pluginv1.UnimplementedPluginServer
}

func (*plugin) GetInfo(_ context.Context, r *pluginv1.GetInfoRequest) (*pluginv1.PluginInfo, error) {
	if r.ApiVersionMin > apiVersion || r.ApiVersionMax < apiVersion {
		return nil, status.Errorf(codes.FailedPrecondition, "this plugin speaks version %d of the protocol, the host %d to %d", apiVersion, r.ApiVersionMin, r.ApiVersionMax)
	}
	return &pluginv1.PluginInfo{Name: "gosample", Version: "0.1.0", ApiVersion: apiVersion, Description: "a plugin in Go, to copy from"}, nil
}

func (*plugin) Initialize(context.Context, *pluginv1.InitializeRequest) (*pluginv1.InitializeResponse, error) {
	return &pluginv1.InitializeResponse{SdkVersion: "none"}, nil
}

func (*plugin) ValidateSpec(_ context.Context, r *pluginv1.ValidateSpecRequest) (*pluginv1.ValidateSpecResponse, error) {
	var found []*pluginv1.Violation
	if r.Devnet.GetValidators() == 0 {
		found = append(found, &pluginv1.Violation{Field: "spec.validators", Message: "must be 1 or more"})
	}
	return &pluginv1.ValidateSpecResponse{Violations: found}, nil
}

func (*plugin) PlanNodes(_ context.Context, r *pluginv1.PlanNodesRequest) (*pluginv1.PlanNodesResponse, error) {
	var nodes []*pluginv1.PlannedNode
	for i := range r.Devnet.GetValidators() {
		node := planned("validator", i)
		node.ConsensusKey = publicKey(r.Devnet, "validator", i)
		node.SignState = signState
		nodes = append(nodes, node)
	}
	for i := range r.Devnet.GetFullNodes() {
		nodes = append(nodes, planned("fullnode", i))
	}
	return &pluginv1.PlanNodesResponse{Nodes: nodes}, nil
}

func planned(role string, index uint32) *pluginv1.PlannedNode {
	ports := []*pluginv1.PortSpec{{Name: "rpc", Port: 8545, Scheme: "http"}}
	return &pluginv1.PlannedNode{Name: fmt.Sprintf("%s-%d", role, index), Role: role, Index: index, Ports: ports}
}

func (*plugin) GenerateGenesis(_ context.Context, r *pluginv1.GenerateGenesisRequest) (*pluginv1.GenerateGenesisResponse, error) {
	reply := &pluginv1.GenerateGenesisResponse{}
	stage := func(path string, mode os.FileMode, content any) error {
		file, err := writeStaged(r.StagingDir, path, mode, content)
		reply.Files = append(reply.Files, file)
		return err
	}
	genesis := map[string]any{"chain_id": r.Devnet.GetChainId(), "genesis_time": r.Devnet.GetGenesisTime()}
	if err := stage("shared/genesis.json", 0o644, genesis); err != nil {
		return nil, err
	}
	reply.GenesisPath, reply.GenesisSha256 = reply.Files[0].Path, reply.Files[0].Sha256
	for _, node := range r.Nodes {
		key := map[string]any{"secret": hex.EncodeToString(derive(r.Devnet, "consensus-key", node.Role, node.Index))}
		if err := stage("nodes/"+node.Name+"/config/key.json", 0o600, key); err != nil {
			return nil, err
		}
	}
	for i := range r.Devnet.GetAccounts() {
		address := "go1" + hex.EncodeToString(derive(r.Devnet, "account", "account", i))[:32]
		reply.Accounts = append(reply.Accounts, &pluginv1.Account{Name: fmt.Sprintf("account:%d", i), Address: address, Balance: "1000go"})
	}
	return reply, nil
}

func writeStaged(staging, path string, mode os.FileMode, content any) (*pluginv1.StagedFile, error) {
	text, err := json.MarshalIndent(content, "", "  ")
	full := filepath.Join(staging, path)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(full), 0o755)
	}
	if err == nil {
		err = os.WriteFile(full, text, mode)
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "%s: %v", full, err)
	}
	digest := sha256.Sum256(text)
	return &pluginv1.StagedFile{Path: path, Sha256: hex.EncodeToString(digest[:])}, nil
}

func (*plugin) StartNode(_ context.Context, r *pluginv1.StartNodeRequest) (*pluginv1.LaunchPlan, error) {
	for _, node := range r.Nodes {
		if node.Name == r.Node {
			own := r.Devnet.GetOverrides()[node.Name]
			return &pluginv1.LaunchPlan{
				Argv:      append([]string{nodeBinary, "1000000"}, own.GetArgs()...),
				Env:       own.GetEnv(),
				Cwd:       node.HomeDir,
				Readiness: &pluginv1.Readiness{Kind: &pluginv1.Readiness_Process{Process: &pluginv1.ProcessProbe{}}},
			}, nil
		}
	}
	return nil, status.Errorf(codes.InvalidArgument, "the devnet has no node `%s`", r.Node)
}

func (*plugin) StopNode(context.Context, *pluginv1.StopNodeRequest) (*pluginv1.StopPlan, error) {
	return &pluginv1.StopPlan{Signal: "SIGTERM", GraceMs: 10_000}, nil
}

func (*plugin) GetNodeStatus(ctx context.Context, r *pluginv1.NodeRef) (*pluginv1.NodeStatus, error) {
	if err := dial(ctx, r.Node); err != nil {
		return nil, err
	}
	return &pluginv1.NodeStatus{Ready: true}, nil
}

func (*plugin) GetBlockHeight(ctx context.Context, r *pluginv1.NodeRef) (*pluginv1.BlockHeight, error) {
	if err := dial(ctx, r.Node); err != nil {
		return nil, err
	}
	return &pluginv1.BlockHeight{}, nil
}

// This family makes no blocks: the stream stays silent until the host or the node goes.
func (*plugin) StreamBlockHeights(r *pluginv1.NodeRef, stream grpc.ServerStreamingServer[pluginv1.BlockHeight]) error {
	if err := dial(stream.Context(), r.Node); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func dial(ctx context.Context, node *pluginv1.PlacedNode) error {
	port := strconv.FormatUint(uint64(node.GetPorts()["rpc"]), 10)
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(node.GetAddress(), port))
	if err != nil {
		return status.Errorf(codes.Unavailable, "node %s does not answer: %v", node.GetName(), err)
	}
	return conn.Close()
}

func (*plugin) ClassifyExit(_ context.Context, r *pluginv1.ClassifyExitRequest) (*pluginv1.ExitClass, error) {
	if r.OomKilled {
		return &pluginv1.ExitClass{Class: "oom", Message: "the kernel killed it for its memory"}, nil
	}
	for _, line := range r.LogTail {
		if bytes.Contains(line, []byte("panic:")) {
			return &pluginv1.ExitClass{Class: "panic", Message: "panic in the log"}, nil
		}
	}
	return &pluginv1.ExitClass{Class: "unknown"}, nil
}

func (*plugin) Close(context.Context, *pluginv1.CloseRequest) (*pluginv1.CloseResponse, error) {
	return &pluginv1.CloseResponse{}, nil
}

// publicKey: there is no signature scheme, so a digest of the secret plays the public key.
func publicKey(devnet *pluginv1.DevnetContext, role string, index uint32) string {
	digest := sha256.Sum256(derive(devnet, "consensus-key", role, index))
	return hex.EncodeToString(digest[:])
}

// derive gives the bytes that the Rust SDK's derive() gives: HKDF-SHA256 of the seed, salted with the chain id.
func derive(devnet *pluginv1.DevnetContext, purpose, role string, index uint32) []byte {
	var info []byte
	for _, part := range []string{"devnetd/v1", purpose, role} {
		info = binary.BigEndian.AppendUint64(info, uint64(len(part)))
		info = append(info, part...)
	}
	info = binary.BigEndian.AppendUint32(info, index)
	key, err := hkdf.Key(sha256.New, []byte(devnet.GetSeed()), []byte(devnet.GetChainId()), string(info), 32)
	if err != nil {
		panic(err) // 32 bytes are less than 255 blocks
	}
	return key
}
