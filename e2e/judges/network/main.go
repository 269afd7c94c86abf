// Judges reachability: the cases that cyclonus generates, as its simulated engine evaluates them.
//
//	network cases     a line of JSON for each step: namespaces, pods, policies, and the cells that it evaluates
//	network time N    evaluates every step N times, and prints seconds for one pass over all
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"strconv"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

type namespace struct {
	Labels map[string]string `json:"labels"`
}

type port struct {
	Name     string      `json:"name"`
	Port     int         `json:"port"`
	Protocol v1.Protocol `json:"protocol"`
}

type pod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	IP        string            `json:"ip"`
	Ports     []port            `json:"ports"`
}

type cell struct {
	From     string      `json:"from"`
	To       string      `json:"to"`
	Port     int         `json:"port"`
	Protocol v1.Protocol `json:"protocol"`
	Allowed  bool        `json:"allowed"`
}

// What there is at a step of a case.
type step struct {
	Description string                        `json:"description"`
	Namespaces  map[string]namespace          `json:"namespaces"`
	Pods        []pod                         `json:"pods"`
	Policies    []*networkingv1.NetworkPolicy `json:"policies"`
	Cells       []cell                        `json:"cells"`

	resources *probe.Resources
	probe     *generator.ProbeConfig
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: network cases | network time N")
	}
	steps := allSteps()
	switch os.Args[1] {
	case "cases":
		out := bufio.NewWriter(os.Stdout)
		defer out.Flush()
		lines := json.NewEncoder(out)
		for _, s := range steps {
			s.Cells = s.evaluate()
			must(lines.Encode(s))
		}
	case "time":
		times, err := strconv.Atoi(os.Args[2])
		must(err)
		began := time.Now()
		for range times {
			for _, s := range steps {
				s.evaluate()
			}
		}
		fmt.Println(time.Since(began).Seconds() / float64(times))
	default:
		log.Fatalf("%q: cases or time", os.Args[1])
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// The pods and namespaces that cyclonus' own command makes by default.
func resources() *probe.Resources {
	r := &probe.Resources{Namespaces: map[string]map[string]string{}}
	for _, ns := range []string{"x", "y", "z"} {
		r.Namespaces[ns] = map[string]string{"ns": ns, "kubernetes.io/metadata.name": ns}
		for _, name := range []string{"a", "b", "c"} {
			protocols := []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP}
			p := probe.NewDefaultPod(ns, name, []int{80, 81}, protocols, false, "")
			p.IP = address(len(r.Pods))
			r.Pods = append(r.Pods, p)
		}
	}
	return r
}

func address(number int) string {
	return fmt.Sprintf("192.168.%d.%d", 242+number/3, 250+number%3)
}

func allSteps() []*step {
	initial := resources()
	last := initial.Pods[len(initial.Pods)-1]
	cases := generator.NewTestCaseGenerator(true, last.IP, []string{"x", "y", "z"}, nil, nil).GenerateTestCases()
	var steps []*step
	for _, testCase := range cases {
		now, policies := initial, []*networkingv1.NetworkPolicy{}
		for _, s := range testCase.Steps {
			for _, action := range s.Actions {
				now, policies = act(now, policies, action)
			}
			steps = append(steps, stepOf(testCase.Description, now, policies, s.Probe))
		}
	}
	return steps
}

func act(r *probe.Resources, policies []*networkingv1.NetworkPolicy, action *generator.Action) (*probe.Resources, []*networkingv1.NetworkPolicy) {
	without := func(ns, name string) []*networkingv1.NetworkPolicy {
		var rest []*networkingv1.NetworkPolicy
		for _, p := range policies {
			if p.Namespace != ns || p.Name != name {
				rest = append(rest, p)
			}
		}
		return rest
	}
	var err error
	switch {
	case action.CreatePolicy != nil:
		policies = append(append([]*networkingv1.NetworkPolicy{}, policies...), action.CreatePolicy.Policy)
	case action.UpdatePolicy != nil:
		p := action.UpdatePolicy.Policy
		policies = append(without(p.Namespace, p.Name), p)
	case action.DeletePolicy != nil:
		policies = without(action.DeletePolicy.Namespace, action.DeletePolicy.Name)
	case action.CreateNamespace != nil:
		r, err = r.CreateNamespace(action.CreateNamespace.Namespace, named(action.CreateNamespace.Namespace, action.CreateNamespace.Labels))
	case action.SetNamespaceLabels != nil:
		r, err = r.UpdateNamespaceLabels(action.SetNamespaceLabels.Namespace, named(action.SetNamespaceLabels.Namespace, action.SetNamespaceLabels.Labels))
	case action.DeleteNamespace != nil:
		r, err = r.DeleteNamespace(action.DeleteNamespace.Namespace)
	case action.CreatePod != nil:
		r, err = r.CreatePod(action.CreatePod.Namespace, action.CreatePod.Pod, action.CreatePod.Labels)
		if err == nil {
			r.Pods[len(r.Pods)-1].IP = address(len(r.Pods) - 1)
		}
	case action.SetPodLabels != nil:
		r, err = r.SetPodLabels(action.SetPodLabels.Namespace, action.SetPodLabels.Pod, action.SetPodLabels.Labels)
	case action.DeletePod != nil:
		r, err = r.DeletePod(action.DeletePod.Namespace, action.DeletePod.Pod)
	default:
		log.Fatalf("an action of a kind that is not known here: %+v", action)
	}
	must(err)
	return r, policies
}

// The API server gives every namespace a label with its name.
func named(ns string, labels map[string]string) map[string]string {
	all := maps.Clone(labels)
	if all == nil {
		all = map[string]string{}
	}
	all["kubernetes.io/metadata.name"] = ns
	return all
}

func stepOf(description string, r *probe.Resources, policies []*networkingv1.NetworkPolicy, config *generator.ProbeConfig) *step {
	s := &step{Description: description, Namespaces: map[string]namespace{}, Policies: policies, resources: r, probe: config}
	for name, labels := range r.Namespaces {
		s.Namespaces[name] = namespace{labels}
	}
	for _, p := range r.Pods {
		made := pod{p.Namespace, p.Name, p.Labels, p.IP, nil}
		for _, c := range p.Containers {
			made.Ports = append(made.Ports, port{c.PortName, c.Port, c.Protocol})
		}
		s.Pods = append(s.Pods, made)
	}
	return s
}

func (s *step) evaluate() []cell {
	policy := matcher.BuildNetworkPolicies(true, s.Policies)
	builder := &probe.JobBuilder{}
	jobs := builder.GetJobsForProbeConfig(s.resources, s.probe).Valid
	cells := make([]cell, 0, len(jobs))
	for _, job := range jobs {
		// As its simulated runner does, which also draws a table for each, for a log that nobody reads.
		allowed := policy.IsTrafficAllowed(job.Traffic()).IsAllowed()
		cells = append(cells, cell{job.FromKey, job.ToKey, job.ResolvedPort, job.Protocol, allowed})
	}
	return cells
}
