// Upstream's own suite for a running cluster, k8s.io/pod-security-admission/test, against Rampart.
//
//	judge KUBECONFIG None|Generate
//
// Each namespace of the suite gets a SecurityPolicy at the level and version that the suite asks for, with
// that admissionPolicy, and none of the labels of Pod Security Admission. It prints what `go test -v` prints.
//
// The suite looks for a word or two in each answer; words.go compares each with the reference's whole text.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/pod-security-admission/test"
)

const (
	policies = "/apis/rampart.dev/v1alpha1/namespaces/%s/securitypolicies/hardened"
	// soon is how long a policy may take to be in force: all of them are made at once.
	soon = 2 * time.Minute
)

// enforcer is what refuses pods in a mode: how status calls it, and how its refusals begin.
type enforcer struct {
	status []string
	says   string
}

var enforcers = map[string]enforcer{
	"None":     {[]string{"Webhook"}, `.rampart.dev" denied the request: `}, // That of `rampart`, or of `rampart-enforce`.
	"Generate": {[]string{"Webhook", "AdmissionPolicy"}, "ValidatingAdmissionPolicy "},
}

// cluster makes namespaces with a policy in force.
type cluster struct {
	client kubernetes.Interface
	mode   string
	lock   sync.Mutex
	made   map[string]func() error
}

// namespace makes one, unless that was already done, and returns when its policy is in force.
func (c *cluster) namespace(name, level, version string) error {
	c.lock.Lock()
	if c.made[name] == nil {
		c.made[name] = sync.OnceValue(func() error { return c.protect(name, level, version) })
	}
	done := c.made[name]
	c.lock.Unlock()
	return done()
}

// create makes a namespace that admits pods.
func (c *cluster) create(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return err
	}
	// No pod is admitted without one, and nobody makes it where no controllers run.
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err := c.client.CoreV1().ServiceAccounts(name).Create(ctx, account, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (c *cluster) protect(namespace, level, version string) error {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := c.create(ctx, namespace); err != nil {
		return err
	}
	asked, err := json.Marshal(map[string]any{
		"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
		"metadata": map[string]any{"name": "hardened", "namespace": namespace},
		"spec": map[string]any{"hardening": map[string]any{
			"mode": "Enforce", "admissionPolicy": c.mode,
			"podSecurity": map[string]any{"level": level, "version": version},
		}},
	})
	if err != nil {
		return err
	}
	path := fmt.Sprintf(policies, namespace)
	if err := c.client.CoreV1().RESTClient().Post().AbsPath(strings.TrimSuffix(path, "/hardened")).Body(asked).Do(ctx).Error(); err != nil {
		return err
	}
	var reason error
	err = wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		if reason = c.status(ctx, path); reason == nil {
			reason = c.refuses(ctx, namespace, level, version)
		}
		return reason == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waited %v for the policy to be in force: %w", soon, reason)
	}
	return nil
}

// status tells whether the policy says of itself that it is enforced.
func (c *cluster) status(ctx context.Context, path string) error {
	text, err := c.client.CoreV1().RESTClient().Get().AbsPath(path).Do(ctx).Raw()
	if err != nil {
		return err
	}
	var live struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Status   struct {
			ObservedGeneration int64 `json:"observedGeneration"`
			Hardening          struct {
				EnforcedBy []string `json:"enforcedBy"`
			} `json:"hardening"`
		} `json:"status"`
	}
	if err := json.Unmarshal(text, &live); err != nil {
		return err
	}
	if live.Status.ObservedGeneration != live.Metadata.Generation || !slices.Equal(live.Status.Hardening.EnforcedBy, enforcers[c.mode].status) {
		return fmt.Errorf("its status is %+v at generation %d", live.Status, live.Metadata.Generation)
	}
	return nil
}

// refuses tells whether a pod that violates both levels at every version is refused in the policy's name.
func (c *cluster) refuses(ctx context.Context, namespace, level, version string) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: corev1.PodSpec{
		HostNetwork: true,
		Containers:  []corev1.Container{{Name: "main", Image: "registry.example.com/app:1"}},
	}}
	_, err := c.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil {
		return fmt.Errorf("a bad pod was admitted")
	}
	says := enforcers[c.mode].says
	if !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), fmt.Sprintf("violates PodSecurity \"%s:%s\": ", level, version)) {
		return fmt.Errorf("a bad pod was refused, but not by %q at %s:%s: %w", says, level, version, err)
	}
	return nil
}

// versions that the suite will ask for. One that is missing here is made when it is asked for, which is slower.
func versions() map[string]bool {
	all := map[string]bool{}
	for _, check := range policy.DefaultChecks() {
		for _, one := range check.Versions {
			all[one.MinimumVersion.String()] = true
		}
	}
	return all
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func main() {
	path, mode := os.Args[1], os.Args[2]
	if _, known := enforcers[mode]; !known {
		must(fmt.Errorf("unknown mode %q", mode))
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	must(err)
	config.QPS = -1
	config.ContentType = "application/json"
	quiet := rest.CopyConfig(config)
	quiet.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(quiet)
	must(err)
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	must(err)
	all := &cluster{client: client, mode: mode, made: map[string]func() error{}}
	must(all.create(context.Background(), "free"))
	for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
		for version := range versions() {
			// The name that the suite gives it.
			name := fmt.Sprintf("podsecurity-%s-%s", level, strings.NewReplacer("v", "", ".", "-").Replace(version))
			go all.namespace(name, string(level), version)
		}
	}
	create := func(_ kubernetes.Interface, name string, labels map[string]string) (*corev1.Namespace, error) {
		err := all.namespace(name, labels[api.EnforceLevelLabel], labels[api.EnforceVersionLabel])
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, err
	}
	heard := &listener{cluster: all, evaluator: evaluator}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		heard.RoundTripper = next
		return heard
	})
	suite := func(t *testing.T) { test.Run(t, test.Options{ClientConfig: config, CreateNamespace: create}) }
	os.Args = []string{os.Args[0], "-test.v", "-test.timeout=15m"}
	testing.Main(regexp.MatchString, []testing.InternalTest{{Name: "PodSecurity", F: suite}, {Name: "Words", F: heard.report}}, nil, nil)
}
