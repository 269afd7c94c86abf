// The reference evaluator of the Pod Security Standards, as a judge of rampart-pss.
//
//	judge eval           JSON Lines of Pods in; a line each out: what it says from which version on
//	judge faults         the same in; at the end, by which Pod each faulty copy gave itself away
//	judge bench LEVEL    the same in; at the end, nanoseconds a Pod
//
// faults.go, which the test writes before it builds this, adds faulty copies of the evaluator.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	kjson "sigs.k8s.io/json"
)

// latest is the index after v1.0 to v1.37.
const latest = 38

type result struct {
	Since   int    `json:"since"`
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
	Detail  string `json:"detail"`
}

type evaluate func(lv api.LevelVersion, metadata *metav1.ObjectMeta, spec *corev1.PodSpec) (allowed bool, reason, detail string)

// faulty copies of the evaluator by name.
var faulty = map[string]evaluate{}

func reference() evaluate {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	must(err)
	return func(lv api.LevelVersion, metadata *metav1.ObjectMeta, spec *corev1.PodSpec) (bool, string, string) {
		all := policy.AggregateCheckResults(evaluator.EvaluatePod(lv, metadata, spec))
		return all.Allowed, all.ForbiddenReason(), all.ForbiddenDetail()
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func version(index int) api.Version {
	if index == latest {
		return api.LatestVersion()
	}
	return api.MajorMinorVersion(1, index)
}

var levels = []api.Level{api.LevelBaseline, api.LevelRestricted}

// decode reads a Pod as the API server does: keys in their exact case.
func decode(line []byte) *corev1.Pod {
	pod := &corev1.Pod{}
	must(kjson.UnmarshalCaseSensitivePreserveInts(line, pod))
	return pod
}

func judge(evaluate evaluate, pod *corev1.Pod) map[api.Level][]result {
	all := map[api.Level][]result{}
	for _, level := range levels {
		var results []result
		for index := 0; index <= latest; index++ {
			allowed, reason, detail := evaluate(api.LevelVersion{Level: level, Version: version(index)}, &pod.ObjectMeta, &pod.Spec)
			if n := len(results); n > 0 && results[n-1].Allowed == allowed && results[n-1].Reason == reason && results[n-1].Detail == detail {
				continue
			}
			results = append(results, result{index, allowed, reason, detail})
		}
		all[level] = results
	}
	return all
}

// eval answers in the order of the input, from every core.
func eval(lines [][]byte) {
	evaluate := reference()
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	const share = 250
	answers := make([]chan []byte, 0, len(lines)/share+1)
	tokens := make(chan struct{}, 4)
	for start := 0; start < len(lines); start += share {
		answers = append(answers, make(chan []byte, 1))
	}
	go func() {
		for n, answer := range answers {
			tokens <- struct{}{}
			go func() {
				var text []byte
				for _, line := range lines[n*share : min((n+1)*share, len(lines))] {
					one, err := json.Marshal(judge(evaluate, decode(line)))
					must(err)
					text = append(append(text, one...), '\n')
				}
				answer <- text
				<-tokens
			}()
		}
	}()
	for _, answer := range answers {
		_, err := out.Write(<-answer)
		must(err)
	}
	must(out.Flush())
}

// faults says which Pod was the first to tell each faulty copy from the reference; -1: none.
func faults(lines [][]byte) {
	right := reference()
	found := map[string]int{}
	var lock sync.Mutex
	var all sync.WaitGroup
	for name, wrong := range faulty {
		all.Add(1)
		go func() {
			defer all.Done()
			first := -1
			for index, line := range lines {
				pod := decode(line)
				if differs(right, wrong, pod) {
					first = index
					break
				}
			}
			lock.Lock()
			defer lock.Unlock()
			found[name] = first
		}()
	}
	all.Wait()
	must(json.NewEncoder(os.Stdout).Encode(found))
}

func differs(right, wrong evaluate, pod *corev1.Pod) bool {
	for _, level := range levels {
		for index := 0; index <= latest; index++ {
			lv := api.LevelVersion{Level: level, Version: version(index)}
			allowed, reason, detail := right(lv, &pod.ObjectMeta, &pod.Spec)
			allowed2, reason2, detail2 := wrong(lv, &pod.ObjectMeta, &pod.Spec)
			if allowed != allowed2 || reason != reason2 || detail != detail2 {
				return true
			}
		}
	}
	return false
}

// bench times the evaluation of decoded Pods, and from JSON to the text of the verdict.
func bench(lines [][]byte, level string) {
	lv := api.LevelVersion{Level: api.Level(level), Version: api.LatestVersion()}
	evaluate := reference()
	pods := make([]*corev1.Pod, len(lines))
	for index, line := range lines {
		pods[index] = decode(line)
	}
	const rounds = 25
	began := time.Now()
	for range rounds {
		for _, pod := range pods {
			evaluate(lv, &pod.ObjectMeta, &pod.Spec)
		}
	}
	decoded := time.Since(began)
	began = time.Now()
	for range rounds {
		for _, line := range lines {
			pod := &corev1.Pod{}
			must(json.Unmarshal(line, pod))
			evaluate(lv, &pod.ObjectMeta, &pod.Spec)
		}
	}
	fromJSON := time.Since(began)
	each := func(took time.Duration) int64 { return took.Nanoseconds() / int64(rounds*len(lines)) }
	must(json.NewEncoder(os.Stdout).Encode(map[string]int64{"decoded": each(decoded), "json": each(fromJSON)}))
}

func main() {
	var lines [][]byte
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		lines = append(lines, append([]byte(nil), in.Bytes()...))
	}
	must(in.Err())
	switch os.Args[1] {
	case "eval":
		eval(lines)
	case "faults":
		faults(lines)
	case "bench":
		bench(lines, os.Args[2])
	default:
		must(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}
