package reports

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/raftbench/raftbench/bench/result"
)

const schemaFile = "result.schema.json"

// schema is the part of JSON Schema 2020-12 that describes a result.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	ID          string             `json:"$id,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Ref         string             `json:"$ref,omitempty"`
	Type        string             `json:"type,omitempty"`
	Const       string             `json:"const,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Format      string             `json:"format,omitempty"`
	Minimum     *int               `json:"minimum,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Values      *schema            `json:"additionalProperties,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Defs        map[string]*schema `json:"$defs,omitempty"`
}

// schemaOf derives the schema from the Go types, and the descriptions from their
// comments: what is published cannot differ from what is written.
type schemaOf struct {
	t        *testing.T
	comments map[string]string // "Run.SaveBytes" → comment; "Run" → comment
	defs     map[string]*schema
}

func newSchema(t *testing.T) *schema {
	s := &schemaOf{t: t, comments: comments(t, filepath.Join("..", "bench", "result", "result.go")), defs: map[string]*schema{}}
	root := s.object(reflect.TypeFor[result.Result]())
	root.Schema, root.ID = "https://json-schema.org/draft/2020-12/schema", "https://github.com/raftbench/raftbench/reports/"+schemaFile
	root.Title = result.Schema
	root.Properties["schema"].Const = result.Schema
	root.Defs = s.defs
	s.defs["Comparison"].Properties["verdict"].Enum = []string{"faster", "slower", "equivalent", "inconclusive"}
	return root
}

// comments reads the doc and line comments of the structs of a file.
func comments(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		decl, ok := n.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			return true
		}
		for _, spec := range decl.Specs {
			ts := spec.(*ast.TypeSpec)
			out[ts.Name.Name] = oneLine(decl.Doc.Text())
			if st, ok := ts.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						out[ts.Name.Name+"."+name.Name] = oneLine(f.Doc.Text() + " " + f.Comment.Text())
					}
				}
			}
		}
		return true
	})
	return out
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (s *schemaOf) object(t reflect.Type) *schema {
	o := &schema{Type: "object", Description: s.comments[t.Name()], Properties: map[string]*schema{}}
	s.fields(o, t)
	return o
}

func (s *schemaOf) fields(o *schema, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if f.Anonymous && tag == "" {
			s.fields(o, f.Type)
			continue
		}
		name, opts, _ := strings.Cut(tag, ",")
		if name == "" {
			s.t.Errorf("%s.%s has no JSON name", t.Name(), f.Name)
			continue
		}
		p := s.typeOf(f.Type)
		if text := s.comments[t.Name()+"."+f.Name]; text != "" {
			if p.Ref == "" && p.Description != "" {
				text = p.Description + ": " + text
			}
			p.Description = text
		}
		if name == "seed" {
			p.Minimum = nil
		}
		if f.Type == reflect.TypeFor[time.Duration]() && !strings.HasSuffix(name, "_ns") {
			s.t.Errorf("%s: a duration whose name %q does not say its unit", t.Name(), name)
		}
		o.Properties[name] = p
		if opts == "" {
			o.Required = append(o.Required, name)
		}
	}
}

func (s *schemaOf) typeOf(t reflect.Type) *schema {
	zero := 0
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return &schema{Type: "integer", Minimum: &zero, Description: "nanoseconds"}
	case t == reflect.TypeFor[time.Time]():
		return &schema{Type: "string", Format: "date-time"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.typeOf(t.Elem())
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int, reflect.Int64:
		return &schema{Type: "integer", Minimum: &zero}
	case reflect.Float64:
		return &schema{Type: "number", Minimum: &zero}
	case reflect.Slice:
		return &schema{Type: "array", Items: s.typeOf(t.Elem())}
	case reflect.Map:
		return &schema{Type: "object", Values: s.typeOf(t.Elem())}
	case reflect.Struct:
		if _, ok := s.defs[t.Name()]; !ok {
			s.defs[t.Name()] = nil // in the making
			s.defs[t.Name()] = s.object(t)
		}
		return &schema{Ref: "#/$defs/" + t.Name()}
	}
	s.t.Fatalf("the schema has no form for %v", t)
	return nil
}

// TestSchemaIsCurrent compares the published schema with the Go types.
func TestSchemaIsCurrent(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(newSchema(t)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("%s does not describe bench/result any more: run go test ./reports -run Schema -update", schemaFile)
	}
}

func compileSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t testing.TB, s *jsonschema.Schema, data []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// TestSchemaAccepts checks what is written, by hand and by RAFTBENCH_RESULTS, a
// list of results of real runs.
func TestSchemaAccepts(t *testing.T) {
	t.Parallel()
	s := compileSchema(t)
	for name, r := range map[string]*result.Result{
		"sample": sample(t, defaultSample()), "full": fullSample(t, 6, 3), "plain": plain(3, map[string]float64{"bbolt": 9000}, "bbolt"),
		"empty": {}, "not numbers": notNumbers(t),
	} {
		var b bytes.Buffer
		if err := JSON(&b, r); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if err := validate(t, s, b.Bytes()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, path := range filepath.SplitList(os.Getenv("RAFTBENCH_RESULTS")) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, data); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// notNumbers is a result with figures that JSON does not have.
func notNumbers(t *testing.T) *result.Result {
	r := sample(t, defaultSample())
	nan := math.NaN()
	r.Runs[0].Throughput, r.Runs[1].SaveFloor, r.Runs[2].WriteAmp = nan, math.Inf(1), &nan
	r.Runs[3].Windows = []float64{1, nan}
	r.Comparisons[0].Ratio, r.Calibration[0].IOPS, r.Env.CPUQuota = nan, math.Inf(-1), nan
	return r
}

// TestSchemaRefuses changes one thing of a good result at a time.
func TestSchemaRefuses(t *testing.T) {
	s := compileSchema(t)
	var b bytes.Buffer
	if err := JSON(&b, plain(1, map[string]float64{"bbolt": 9000}, "bbolt")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new string }{
		{"another version", `"raftbench/v1"`, `"raftbench/v2"`},
		{"duration with a fraction", `"elapsed_ns": 5000000000`, `"elapsed_ns": 5000000000.5`},
		{"duration as text", `"elapsed_ns": 5000000000`, `"elapsed_ns": "5s"`},
		{"negative duration", `"elapsed_ns": 5000000000`, `"elapsed_ns": -1`},
		{"runs that are no list", `"runs": [`, `"other": 1, "runs": {}, "rest": [`},
		{"a run without a backend", `"backend": "bbolt"`, `"engine": "bbolt"`},
		{"a count as text", `"ops": `, `"ops": "many", "n": `},
		{"a time that is none", `"started": "0001-01-01T00:00:00Z"`, `"started": "yesterday"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := strings.Replace(b.String(), c.old, c.new, 1)
			if changed == b.String() {
				t.Fatalf("the result does not hold %s", c.old)
			}
			if validate(t, s, []byte(changed)) == nil {
				t.Error("accepted")
			}
		})
	}
	if err := validate(t, s, []byte(strings.Replace(b.String(), `"runs"`, `"added_later": {"x": 1}, "runs"`, 1))); err != nil {
		t.Errorf("a name that is not known: %v", err)
	}
}
