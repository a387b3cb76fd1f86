package manifesttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// certificates are what `raftbench agent --init` makes.
var certificates = []string{"ca.crt", "ca.key", "agent.crt", "agent.key", "coordinator.crt", "coordinator.key"}

// manifests are the objects of the kustomization, and the pod that fetches.
type manifests struct {
	namespaces   []*corev1.Namespace
	secrets      []*corev1.Secret
	services     []*corev1.Service
	claims       []*corev1.PersistentVolumeClaim
	policies     []*networkingv1.NetworkPolicy
	statefulSets []*appsv1.StatefulSet
	jobs         []*batchv1.Job
	pods         []*corev1.Pod // the one that fetches
}

// sources puts the manifests into a file system in memory, with certificates.
func sources(t *testing.T) filesys.FileSystem {
	t.Helper()
	fs := filesys.MakeFsInMemory()
	files, err := filepath.Glob("../*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d manifests, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		write(t, fs, filepath.Base(f), data)
	}
	for _, c := range certificates {
		write(t, fs, filepath.Join("tls", c), []byte("content of "+c))
	}
	return fs
}

func write(t *testing.T, fs filesys.FileSystem, name string, data []byte) {
	t.Helper()
	if err := fs.WriteFile(filepath.Join("/kubernetes", name), data); err != nil {
		t.Fatal(err)
	}
}

// build is `kustomize build`, decoded.
func build(fs filesys.FileSystem) (*manifests, error) {
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, "/kubernetes")
	if err != nil {
		return nil, fmt.Errorf("build the kustomization: %w", err)
	}
	var m manifests
	for _, o := range objects.Resources() {
		text, err := o.AsYAML()
		if err != nil {
			return nil, err
		}
		if err := m.decode(o.GetKind(), text); err != nil {
			return nil, fmt.Errorf("%s %s: %w\n%s", o.GetKind(), o.GetName(), err, text)
		}
	}
	text, err := fs.ReadFile("/kubernetes/fetch.yaml")
	if err != nil {
		return nil, err
	}
	return &m, m.decode("Pod", text)
}

// decode knows the kinds that there are; a field that a type does not have is an
// error.
func (m *manifests) decode(kind string, text []byte) (err error) {
	switch kind {
	case "Namespace":
		m.namespaces, err = add(m.namespaces, text)
	case "Secret":
		m.secrets, err = add(m.secrets, text)
	case "Service":
		m.services, err = add(m.services, text)
	case "PersistentVolumeClaim":
		m.claims, err = add(m.claims, text)
	case "NetworkPolicy":
		m.policies, err = add(m.policies, text)
	case "StatefulSet":
		m.statefulSets, err = add(m.statefulSets, text)
	case "Job":
		m.jobs, err = add(m.jobs, text)
	case "Pod":
		m.pods, err = add(m.pods, text)
	default:
		err = errors.New("this test does not know the kind")
	}
	return err
}

// add decodes one more object of a type, strictly.
func add[T any](list []*T, text []byte) ([]*T, error) {
	object := new(T)
	return append(list, object), yaml.UnmarshalStrict(text, object)
}

// problems follows every name from its use to its definition.
func (m *manifests) problems() []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if len(m.namespaces) != 1 || len(m.statefulSets) != 1 || len(m.jobs) != 1 || len(m.pods) != 1 || len(m.services) != 1 || len(m.policies) != 1 {
		return []string{"an object is missing or doubled"}
	}
	m.checkNamespaces(bad)
	m.checkAgents(bad)
	m.checkJob(bad)
	for name, spec := range map[string]*corev1.PodSpec{
		"agent": &m.statefulSets[0].Spec.Template.Spec, "coordinator": &m.jobs[0].Spec.Template.Spec, "fetch": &m.pods[0].Spec,
	} {
		m.checkPod(name, spec, bad)
	}
	slices.Sort(out)
	return out
}

type complain func(format string, args ...any)

func (m *manifests) checkNamespaces(bad complain) {
	want := m.namespaces[0].Name
	in := map[string]string{
		"statefulset": m.statefulSets[0].Namespace, "job": m.jobs[0].Namespace, "fetch": m.pods[0].Namespace,
		"service": m.services[0].Namespace, "policy": m.policies[0].Namespace,
	}
	for _, c := range m.claims {
		in["claim "+c.Name] = c.Namespace
	}
	for _, s := range m.secrets {
		in["secret "+s.Name] = s.Namespace
	}
	for what, ns := range in {
		if ns != want {
			bad("%s is in namespace %q, not %q", what, ns, want)
		}
	}
}

func (m *manifests) checkAgents(bad complain) {
	set, service := m.statefulSets[0], m.services[0]
	labels := set.Spec.Template.Labels
	if !selects(set.Spec.Selector.MatchLabels, labels) || !selects(service.Spec.Selector, labels) || !selects(m.policies[0].Spec.PodSelector.MatchLabels, labels) {
		bad("a selector does not find the agents %v", labels)
	}
	if selects(service.Spec.Selector, m.jobs[0].Spec.Template.Labels) {
		bad("the service finds the coordinator")
	}
	for _, rule := range m.policies[0].Spec.Ingress {
		for _, from := range rule.From {
			if !selects(from.PodSelector.MatchLabels, labels) || !selects(from.PodSelector.MatchLabels, m.jobs[0].Spec.Template.Labels) {
				bad("the network policy keeps agents or coordinator out")
			}
		}
	}
	if set.Spec.ServiceName != service.Name || service.Spec.ClusterIP != corev1.ClusterIPNone {
		bad("the agents have no names: service %s, cluster IP %q", set.Spec.ServiceName, service.Spec.ClusterIP)
	}
	open := map[int32]string{}
	for _, p := range set.Spec.Template.Spec.Containers[0].Ports {
		open[p.ContainerPort] = p.Name
	}
	for _, p := range service.Spec.Ports {
		if open[p.Port] != p.Name {
			bad("port %d (%s) of the service is not one of the agent %v", p.Port, p.Name, open)
		}
	}
	for _, flag := range []string{"--listen", "--peer-listen"} {
		value := flagValue(set.Spec.Template.Spec.Containers[0].Args, flag)
		if !slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return value == fmt.Sprintf(":%d", p.Port) }) {
			bad("%s=%s is not a port of the service", flag, value)
		}
	}
	claim := set.Spec.VolumeClaimTemplates[0]
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		bad("the disks of the agents have no storage class")
	}
	if !strings.HasPrefix(flagValue(set.Spec.Template.Spec.Containers[0].Args, "--dir"), mountOf(set.Spec.Template.Spec.Containers[0], claim.Name)+"/") {
		bad("--dir is not on the disk under test")
	}
}

func (m *manifests) checkJob(bad complain) {
	container := m.jobs[0].Spec.Template.Spec.Containers[0]
	var want []string
	for i := range int(*m.statefulSets[0].Spec.Replicas) {
		want = append(want, fmt.Sprintf("%s-%d.%s:%d", m.statefulSets[0].Name, i, m.services[0].Name, m.services[0].Spec.Ports[0].Port))
	}
	if got := flagValue(container.Args, "--hosts"); got != strings.Join(want, ",") {
		bad("--hosts=%s, want %s", got, strings.Join(want, ","))
	}
	if !strings.HasPrefix(flagValue(container.Args, "--out"), mountOf(container, "results")+"/") {
		bad("--out is not on the volume of the results")
	}
	for _, rule := range m.jobs[0].Spec.PodFailurePolicy.Rules {
		if rule.OnExitCodes == nil || *rule.OnExitCodes.ContainerName != container.Name {
			bad("a rule of the failure policy names no container of the job")
		}
	}
	if m.jobs[0].Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		bad("a failure policy needs restartPolicy Never")
	}
}

// checkPod: volumes are defined, secrets hold what is mounted, and nothing runs
// with more rights than it needs.
func (m *manifests) checkPod(name string, spec *corev1.PodSpec, bad complain) {
	defined := map[string]bool{}
	for _, v := range spec.Volumes {
		defined[v.Name] = true
		if v.Secret != nil {
			m.checkSecret(name, v.Secret.SecretName, bad)
		}
		if c := v.PersistentVolumeClaim; c != nil && !slices.ContainsFunc(m.claims, func(have *corev1.PersistentVolumeClaim) bool { return have.Name == c.ClaimName }) {
			bad("%s: no claim %s", name, c.ClaimName)
		}
	}
	if name == "agent" {
		for _, c := range m.statefulSets[0].Spec.VolumeClaimTemplates {
			defined[c.Name] = true
		}
	}
	if s := spec.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil {
		bad("%s: may run as root, or without seccomp", name)
	}
	for _, c := range spec.Containers {
		for _, mount := range c.VolumeMounts {
			if !defined[mount.Name] {
				bad("%s: no volume %s", name, mount.Name)
			}
		}
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
			bad("%s: has more rights than it needs", name)
		}
		if c.Image == "" || c.Image == "raftbench" {
			bad("%s: image %q was not set by the kustomization", name, c.Image)
		}
	}
}

// checkSecret: a role gets the CA's certificate and its own pair, never the key of
// the CA.
func (m *manifests) checkSecret(role, secret string, bad complain) {
	for _, s := range m.secrets {
		if s.Name != secret {
			continue
		}
		want := []string{role + ".crt", role + ".key", "ca.crt"}
		if got := slices.Sorted(maps.Keys(s.Data)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			bad("secret %s holds %v, want %v", secret, got, want)
		}
		return
	}
	bad("%s: no secret %s", role, secret)
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

func flagValue(args []string, flag string) string {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			return v
		}
	}
	return ""
}

func mountOf(c corev1.Container, volume string) string {
	for _, m := range c.VolumeMounts {
		if m.Name == volume {
			return m.MountPath
		}
	}
	return "(not mounted)"
}

func TestManifests(t *testing.T) {
	m, err := build(sources(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.problems() {
		t.Error(p)
	}
}

// TestMistakes makes mistakes in the manifests, each of which must be found.
func TestMistakes(t *testing.T) {
	for name, tc := range map[string]struct{ file, from, to, want string }{
		"a field that does not exist": {"agents.yaml", "podManagementPolicy", "podManagmentPolicy", "podManagmentPolicy"},
		"a value of another type":     {"agents.yaml", "replicas: 3", "replicas: three", "replicas"},
		"a selector":                  {"agents.yaml", "matchLabels:\n      app.kubernetes.io/name: raftbench", "matchLabels:\n      app.kubernetes.io/name: other", "selector"},
		"one agent more":              {"agents.yaml", "replicas: 3", "replicas: 4", "--hosts"},
		"a port":                      {"agents.yaml", "--listen=:7400", "--listen=:7500", "--listen=:7500"},
		"a volume":                    {"agents.yaml", "- name: data\n              mountPath", "- name: disk\n              mountPath", "no volume disk"},
		"a secret":                    {"coordinator.yaml", "secretName: coordinator-tls", "secretName: tls", "no secret tls"},
		"the key of the CA":           {"kustomization.yaml", "- tls/agent.key", "- tls/agent.key\n      - tls/ca.key", "secret agent-tls"},
		"a claim":                     {"coordinator.yaml", "claimName: results", "claimName: result", "no claim result"},
		"root":                        {"agents.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"},
		"a restart":                   {"coordinator.yaml", "restartPolicy: Never", "restartPolicy: OnFailure", "restartPolicy"},
		"the system disk":             {"agents.yaml", "--dir=/data/raftbench", "--dir=/tmp/raftbench", "--dir"},
		"a patch of nothing":          {"kustomization.yaml", "volumeClaimTemplates/0", "volumeClaimTemplates/7", "build the kustomization"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := sources(t)
			path := filepath.Join("/kubernetes", tc.file)
			text, err := fs.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.Replace(text, []byte(tc.from), []byte(tc.to), 1)
			if bytes.Equal(text, changed) {
				t.Fatalf("%s has no %q", tc.file, tc.from)
			}
			write(t, fs, tc.file, changed)
			m, err := build(fs)
			found := fmt.Sprint(err)
			if err == nil {
				found = strings.Join(m.problems(), "\n")
			}
			if !strings.Contains(found, tc.want) {
				t.Errorf("found %q, want %q", found, tc.want)
			}
		})
	}
}

// TestDockerfile: the image is the static program, run by nobody in particular.
func TestDockerfile(t *testing.T) {
	f, err := os.Open("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CGO_ENABLED=0", "./cmd/raftbench", "FROM scratch", "USER 65532:65532", `ENTRYPOINT ["/raftbench"]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the Dockerfile has no %q", want)
		}
	}
}
