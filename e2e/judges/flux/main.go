// Judges what Flux and kstatus would say of objects: one a line on standard input.
//
//	flux EXPRESSIONS    a line each: the status by kstatus (kubectl, kpt), by Flux's fork of it, and by the healthCheckExprs
//	                    of the Kustomization in the file, as Flux evaluates them
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"

	flux "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	must(err)
	var file struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	must(yaml.Unmarshal(text, &file))
	evaluators := map[string]*cel.StatusEvaluator{}
	for _, check := range file.Spec.HealthCheckExprs {
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		must(err)
		evaluators[check.APIVersion+"/"+check.Kind] = evaluator
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var object unstructured.Unstructured
		must(object.UnmarshalJSON(lines.Bytes()))
		plain, err := status.Compute(&object)
		must(err)
		forked, err := flux.Compute(&object)
		must(err)
		// Where there is no expression for a kind, Flux goes by its kstatus.
		expressed := string(forked.Status)
		if evaluator := evaluators[object.GetAPIVersion()+"/"+object.GetKind()]; evaluator != nil {
			result, err := evaluator.Evaluate(context.Background(), &object)
			if err != nil {
				expressed = err.Error()
			} else {
				expressed = string(result.Status)
			}
		}
		must(out.Encode(map[string]string{
			"kstatus": string(plain.Status), "flux": string(forked.Status), "expressions": expressed,
		}))
	}
	must(lines.Err())
}
