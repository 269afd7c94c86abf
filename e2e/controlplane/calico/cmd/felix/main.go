// Command felix is Calico's agent on a node, built from its Go module: it turns NetworkPolicies into
// rules of the kernel. Its configuration comes from the environment.
package main

import "github.com/projectcalico/calico/felix/daemon"

func main() {
	daemon.Run("/nonexistent/felix.cfg", "v3.28.5", "", "")
}
