// flanneld for nodes whose Pod network is flannel: what flannel-io/flannel's own main does with
// --kube-subnet-mgr, from its packages. Its main itself imports the SDKs of all clouds, and the
// `flannel` CNI plugin is no published module: so this program also writes the CNI configuration
// that the plugin would hand to `bridge` and `host-local`.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
	log "k8s.io/klog/v2"
)

const resyncSeconds = 5

type options struct {
	kubeconfig string
	iface      string
	ipMasq     bool
	netConf    string
	subnetFile string
	cniConf    string
}

func main() {
	flags := flag.NewFlagSet("flanneld", flag.ExitOnError)
	log.InitFlags(flags)
	var opts options
	kubeSubnetMgr := flags.Bool("kube-subnet-mgr", true, "take the subnet from Node.spec.podCIDR: the only way that this flanneld has")
	flags.StringVar(&opts.kubeconfig, "kubeconfig-file", "", "kubeconfig; not needed in a Pod")
	flags.StringVar(&opts.iface, "iface", "", "interface for the traffic between nodes, by name or address; that of the default route when not given")
	flags.BoolVar(&opts.ipMasq, "ip-masq", false, "masquerade what leaves the Pod network")
	flags.StringVar(&opts.netConf, "net-config-path", "/etc/kube-flannel/net-conf.json", "the network's configuration")
	flags.StringVar(&opts.subnetFile, "subnet-file", "/run/flannel/subnet.env", "where this node's subnet is written")
	flags.StringVar(&opts.cniConf, "cni-conf", "/etc/cni/net.d/10-flannel.conflist", "where the CNI configuration is written")
	_ = flags.Parse(os.Args[1:]) // It exits by itself on an error.
	if !*kubeSubnetMgr || flags.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "flanneld: no arguments besides flags, and --kube-subnet-mgr is the only mode")
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, cancel, opts); err != nil && ctx.Err() == nil {
		log.Errorf("flanneld: %v", err)
		log.Flush()
		os.Exit(1)
	}
}

func run(ctx context.Context, cancel context.CancelFunc, opts options) error {
	manager, err := kube.NewSubnetManager(ctx, "", opts.kubeconfig, "flannel.alpha.coreos.com", opts.netConf, true)
	if err != nil {
		return err
	}
	config, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("reading the network's configuration: %w", err)
	}
	if !config.EnableIPv4 || config.EnableIPv6 {
		return errors.New("only IPv4 networks are supported: EnableIPv4 must be true and EnableIPv6 false")
	}
	external, err := externalInterface(ctx, manager, opts.iface)
	if err != nil {
		return fmt.Errorf("finding the interface between nodes: %w", err)
	}
	chosen, err := backend.NewManager(ctx, manager, external).GetBackend(config.BackendType)
	if err != nil {
		return fmt.Errorf("the backend %q: %w", config.BackendType, err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	network, err := chosen.RegisterNetwork(ctx, &wg, config)
	if err != nil {
		return fmt.Errorf("registering the network: %w", err)
	}
	if err := setRules(ctx, config, network, opts); err != nil {
		return err
	}
	lease := network.Lease()
	if err := manager.HandleSubnetFile(opts.subnetFile, config, opts.ipMasq, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return fmt.Errorf("writing %s: %w", opts.subnetFile, err)
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		network.Run(ctx)
	}()
	// Last, since a node is ready from here on.
	if err := writeCNI(opts.cniConf, lease.Subnet.String(), network.MTU()); err != nil {
		return fmt.Errorf("writing %s: %w", opts.cniConf, err)
	}
	log.Infof("ready: %s by %s, MTU %d", lease.Subnet, config.BackendType, network.MTU())
	if err := manager.CompleteLease(ctx, lease, &wg); err != nil {
		return fmt.Errorf("marking the Node's network as available: %w", err)
	}
	<-ctx.Done()
	return nil
}

func externalInterface(ctx context.Context, manager subnet.Manager, name string) (*backend.ExternalInterface, error) {
	stack, err := ipmatch.GetIPFamily(true, false)
	if err != nil {
		return nil, err
	}
	// An annotation of the Node comes first, as in flannel's own main.
	public, _ := manager.GetStoredPublicIP(ctx)
	if name == "" {
		name = public
	}
	return ipmatch.LookupExtIface(name, "", "", stack, ipmatch.PublicIPOpts{PublicIP: public})
}

// setRules installs forwarding and masquerading, and removes those of the other rule language: the
// network's configuration may have changed it since the last start.
func setRules(ctx context.Context, config *subnet.Config, network backend.Network, opts options) error {
	var wanted, other trafficmngr.TrafficManager = &iptables.IPTablesManager{}, &nftables.NFTablesManager{}
	if config.EnableNFTables {
		wanted, other = other, wanted
	}
	if err := other.CleanUp(ctx); err != nil {
		return fmt.Errorf("removing unused rules: %w", err)
	}
	if err := wanted.Init(ctx); err != nil {
		return fmt.Errorf("setting up rules: %w", err)
	}
	if opts.ipMasq {
		old := previous(opts.subnetFile)
		err := wanted.SetupAndEnsureMasqRules(ctx,
			config.Network, old["FLANNEL_SUBNET"], old["FLANNEL_NETWORK"],
			config.IPv6Network, ip.IP6Net{}, ip.IP6Net{},
			network.Lease(), resyncSeconds, false)
		if err != nil {
			return fmt.Errorf("setting up masquerading: %w", err)
		}
	}
	wanted.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, resyncSeconds)
	return nil
}

// previous gives the networks of the last start's subnet file; without one there are none.
func previous(path string) map[string]ip.IP4Net {
	networks := map[string]ip.IP4Net{}
	file, err := os.Open(path)
	if err != nil {
		return networks
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		if _, cidr, err := net.ParseCIDR(value); err == nil && cidr.IP.To4() != nil {
			networks[name] = ip.FromIPNet(cidr)
		}
	}
	return networks
}

type object = map[string]any

// writeCNI puts the configuration in place whole: the container runtime reads it at any moment.
func writeCNI(path, subnet string, mtu int) error {
	text, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       "cbr0",
		"plugins": []object{
			{
				"type":             "bridge",
				"bridge":           "cni0",
				"isDefaultGateway": true,
				"hairpinMode":      true,
				"ipMasq":           false,
				"mtu":              mtu,
				"ipam": object{
					"type":   "host-local",
					"ranges": [][]object{{{"subnet": subnet}}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	unfinished := path + ".new"
	if err := os.WriteFile(unfinished, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
}
