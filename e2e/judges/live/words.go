package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// listener hears what the suite asks the API server, one thing at a time, and compares each answer with the
// reference, whose evaluator is given the pod as the API server stores it.
type listener struct {
	http.RoundTripper
	cluster             *cluster
	evaluator           policy.Evaluator
	pods, refused       int
	deployments, warned int
	invalid             int
	differences         []string
}

// shown is how many differences are reported: there are few, or it is all of them.
const shown = 10

// asked is where the suite creates something.
var asked = regexp.MustCompile(`/namespaces/(podsecurity-([a-z]+)-1-([0-9]+))/(pods|deployments)$`)

func (l *listener) RoundTrip(request *http.Request) (*http.Response, error) {
	found := asked.FindStringSubmatch(request.URL.Path)
	if found == nil || request.Method != http.MethodPost {
		return l.RoundTripper.RoundTrip(request)
	}
	body, err := request.GetBody()
	if err != nil {
		return nil, err
	}
	sent, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	response, err := l.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	said, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(said))

	version, err := api.ParseVersion("v1." + found[3])
	if err != nil {
		return nil, err
	}
	lv := api.LevelVersion{Level: api.Level(found[2]), Version: version}
	if found[4] == "pods" {
		err = l.pod(lv, sent, response.StatusCode, said)
	} else {
		err = l.deployment(lv, response, said)
	}
	if err != nil {
		l.differences = append(l.differences, fmt.Sprintf("%s: %v\n  sent %s", lv, err, sent))
	}
	return response, nil
}

// wanted is what the reference says of a pod; empty: nothing.
func (l *listener) wanted(lv api.LevelVersion, meta *metav1.ObjectMeta, spec *corev1.PodSpec) string {
	all := policy.AggregateCheckResults(l.evaluator.EvaluatePod(lv, meta, spec))
	if all.Allowed {
		return ""
	}
	// The bracket begins what Rampart adds: the reference's text ends there.
	return fmt.Sprintf("PodSecurity %q: %s [", lv.String(), all.ForbiddenDetail())
}

func (l *listener) pod(lv api.LevelVersion, sent []byte, code int, said []byte) error {
	stored := said
	if code != http.StatusCreated {
		// What the API server makes of it shows where nothing is enforced.
		var there int
		free := l.cluster.client.CoreV1().RESTClient().Post().AbsPath("/api/v1/namespaces/free/pods").Param("dryRun", "All")
		raw, err := free.Body(sent).Do(context.Background()).StatusCode(&there).Raw()
		if there == http.StatusUnprocessableEntity {
			l.invalid++
			return nil
		}
		if err != nil {
			return err
		}
		stored = raw
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(stored, pod); err != nil {
		return err
	}
	l.pods++
	wanted := l.wanted(lv, &pod.ObjectMeta, &pod.Spec)
	if wanted == "" {
		if code != http.StatusCreated {
			return fmt.Errorf("the reference allows it; got %d %s", code, said)
		}
		return nil
	}
	l.refused++
	var status metav1.Status
	if err := json.Unmarshal(said, &status); err != nil {
		return err
	}
	wanted = "violates " + wanted
	if code != http.StatusForbidden || !strings.Contains(status.Message, wanted) || !strings.Contains(status.Message, enforcers[l.cluster.mode].says) {
		return fmt.Errorf("wanted %s; got %d %s", wanted, code, status.Message)
	}
	return nil
}

func (l *listener) deployment(lv api.LevelVersion, response *http.Response, said []byte) error {
	if response.StatusCode != http.StatusCreated {
		l.invalid++
		return nil // The suite says so where it should not be.
	}
	stored := &appsv1.Deployment{}
	if err := json.Unmarshal(said, stored); err != nil {
		return err
	}
	l.deployments++
	var warnings []string
	headers, errs := utilnet.ParseWarningHeaders(response.Header["Warning"])
	if len(errs) > 0 {
		return errs[0]
	}
	for _, header := range headers {
		if strings.Contains(header.Text, "PodSecurity") {
			warnings = append(warnings, header.Text)
		}
	}
	wanted := l.wanted(lv, &stored.Spec.Template.ObjectMeta, &stored.Spec.Template.Spec)
	if wanted == "" {
		if len(warnings) > 0 {
			return fmt.Errorf("the reference says nothing; got %q", warnings)
		}
		return nil
	}
	l.warned++
	wanted = "would violate " + wanted
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], wanted) {
		return fmt.Errorf("wanted %s; got %q", wanted, warnings)
	}
	return nil
}

// report fails where an answer differed from the reference.
func (l *listener) report(t *testing.T) {
	fmt.Printf("compared: %d pods, %d of them refused; %d deployments, %d of them warned about; %d invalid objects\n",
		l.pods, l.refused, l.deployments, l.warned, l.invalid)
	for number, difference := range l.differences {
		if number == shown {
			t.Fatalf("and %d differences more", len(l.differences)-shown)
		}
		t.Error(difference)
	}
}
