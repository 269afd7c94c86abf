// Judges what Argo CD would show: health and differences, by its own code.
//
//	argocd health CONFIGMAP    an object a line; a line of status and message each, by the health checks of the ConfigMap
//	argocd tests DIRECTORY     Argo CD's form of health_test.yaml, as its own test of resource_customizations runs it
//	argocd diff                {"config", "live", "predicted"} a line; the patches that it would find, by either method
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func mustJSON(value any) string {
	text, err := json.Marshal(value)
	must(err)
	return string(text)
}

func main() {
	switch os.Args[1] {
	case "health":
		checks := overrides(os.Args[2])
		answer(func(line []byte) any {
			var object unstructured.Unstructured
			must(object.UnmarshalJSON(line))
			verdict, err := health.GetResourceHealth(&object, checks)
			must(err)
			if verdict == nil {
				// Argo CD shows nothing, and does not wait.
				verdict = &health.HealthStatus{}
			}
			return verdict
		})
	case "tests":
		tests(os.Args[2])
	case "diff":
		answer(difference)
	default:
		log.Fatalf("unknown command %q", os.Args[1])
	}
}

// Answers each line of standard input by one of JSON.
func answer(of func([]byte) any) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		must(out.Encode(of(lines.Bytes())))
	}
	must(lines.Err())
}

// As the settings of Argo CD read `resource.customizations.health.<group>_<kind>`.
func overrides(path string) lua.ResourceHealthOverrides {
	text, err := os.ReadFile(path)
	must(err)
	var file struct {
		Data map[string]string `json:"data"`
	}
	must(yaml.Unmarshal(text, &file))
	all := lua.ResourceHealthOverrides{}
	for key, script := range file.Data {
		name, ok := strings.CutPrefix(key, "resource.customizations.health.")
		group, kind, found := strings.Cut(name, "_")
		if !ok || !found {
			log.Fatalf("%s: %q is no health check", path, key)
		}
		all[group+"/"+kind] = v1alpha1.ResourceOverride{HealthLua: script}
	}
	return all
}

func tests(directory string) {
	text, err := os.ReadFile(filepath.Join(directory, "health_test.yaml"))
	must(err)
	script, err := os.ReadFile(filepath.Join(directory, "health.lua"))
	must(err)
	var file struct {
		Tests []struct {
			InputPath    string              `json:"inputPath"`
			HealthStatus health.HealthStatus `json:"healthStatus"`
		} `json:"tests"`
	}
	must(yaml.Unmarshal(text, &file))
	for _, test := range file.Tests {
		text, err := os.ReadFile(filepath.Join(directory, test.InputPath))
		must(err)
		var object unstructured.Unstructured
		must(yaml.Unmarshal(text, &object.Object))
		vm := lua.VM{UseOpenLibs: true}
		verdict, err := vm.ExecuteHealthLua(&object, string(script))
		must(err)
		if verdict.Status != test.HealthStatus.Status || verdict.Message != test.HealthStatus.Message {
			log.Fatalf("%s: wanted %+v, is %+v", test.InputPath, test.HealthStatus, *verdict)
		}
	}
	fmt.Println(len(file.Tests))
}

// The server's answer to a dry run, which the caller has asked for.
type predicted string

func (p predicted) Run(context.Context, *unstructured.Unstructured, string) (string, error) {
	return string(p), nil
}

func difference(line []byte) any {
	var asked struct {
		Config    map[string]any  `json:"config"`
		Live      map[string]any  `json:"live"`
		Predicted json.RawMessage `json:"predicted"`
	}
	must(json.Unmarshal(line, &asked))
	live := func() *unstructured.Unstructured { return (&unstructured.Unstructured{Object: asked.Live}).DeepCopy() }
	config := func() *unstructured.Unstructured {
		return (&unstructured.Unstructured{Object: asked.Config}).DeepCopy()
	}
	// As `kubectl apply` would have left it, which is what the older method goes by.
	annotated, applied := live(), mustJSON(asked.Config)
	annotations := annotated.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[diff.AnnotationLastAppliedConfig] = applied
	annotated.SetAnnotations(annotations)
	client, err := diff.Diff(config(), annotated)
	must(err)
	server, err := diff.Diff(config(), live(), diff.WithServerSideDiff(true), diff.WithIgnoreMutationWebhook(false),
		diff.WithServerSideDryRunner(predicted(asked.Predicted)), diff.WithManager("argocd-controller"))
	must(err)
	return map[string]any{"clientSide": told(client), "serverSide": told(server)}
}

// Nothing, or what is and what would be.
func told(found *diff.DiffResult) any {
	if !found.Modified {
		return nil
	}
	return map[string]json.RawMessage{"live": found.NormalizedLive, "wanted": found.PredictedLive}
}
