package lab

import "fmt"

// Scene is most of a T for a program that is not a test: all but TempDir, which
// each program keeps where it will.
type Scene struct{ cleanups []func() }

// failure is what Fatalf panics with.
type failure struct{ error }

// Helper does nothing.
func (s *Scene) Helper() {}

// Fatalf ends the program's act: see Catch.
func (s *Scene) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// Cleanup has fn called by Strike, last first.
func (s *Scene) Cleanup(fn func()) { s.cleanups = append(s.cleanups, fn) }

// Strike takes down what was made.
func (s *Scene) Strike() {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
	s.cleanups = nil
}

// Catch turns the panic of Fatalf into an error; to be deferred.
func Catch(err *error) {
	switch p := recover().(type) {
	case nil:
	case failure:
		*err = p.error
	default:
		panic(p)
	}
}
