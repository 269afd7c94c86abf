// Command calico is Calico's CNI plugin, built from its Go module.
package main

import "github.com/projectcalico/calico/cni-plugin/pkg/plugin"

func main() {
	plugin.Main("v3.28.5")
}
