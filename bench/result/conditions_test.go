package result_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
)

// TestConditions: whatever an environment says of a machine or a build is a condition, or
// is known to change by itself or to follow from one.
func TestConditions(t *testing.T) {
	known := []string{"Version", "Modules", "Dir", "Rotational", "FreeBytes", "Before", "After", "Warnings"}
	same := func(a, b *result.Result) bool { return slices.Equal(a.Conditions(), b.Conditions()) }
	fields := reflect.TypeFor[result.Env]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		var changed result.Result
		switch f := reflect.ValueOf(&changed.Env).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Int, reflect.Int64:
			f.SetInt(1)
		case reflect.Float64:
			f.SetFloat(1)
		case reflect.Bool:
			f.SetBool(true)
		}
		if same(&changed, &result.Result{}) != slices.Contains(known, name) {
			t.Errorf("%s: is it a condition?", name)
		}
	}
	host := func(name string) result.Host { return result.Host{Env: result.Env{Hostname: name}} }
	two := &result.Result{Hosts: []result.Host{host(""), host("b")}}
	for name, other := range map[string]*result.Result{
		"one host": {}, "another second host": {Hosts: []result.Host{host(""), host("c")}}, "three": {Hosts: []result.Host{host(""), host("b"), host("b")}},
	} {
		if same(two, other) {
			t.Errorf("%s: no condition differs", name)
		}
	}
	if !same(two, &result.Result{Hosts: []result.Host{host(""), host("b")}}) {
		t.Error("conditions of two hosts differ from themselves")
	}
}
