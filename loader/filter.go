package loader

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// Errors that callers may test for with errors.Is.
var (
	ErrNotLoaded    = errors.New("no filter is loaded")
	ErrOtherVersion = errors.New("the pins are another version's")
	ErrBusy         = errors.New("another agent holds the filter")
	ErrForeign      = errors.New("another XDP program is attached")
	ErrUnsupported  = errors.New("this kernel cannot run the filter")
)

// Options configure Open.
type Options struct {
	PinDir string       // on a bpf filesystem; made where it is missing
	Log    *slog.Logger // nil = silent

	// PassageIdle is how long a connection to a server that is not a socket of
	// this host may be silent before its slot is given back; 0 = 15 minutes.
	PassageIdle time.Duration
}

// Filter is the loaded program with its maps and links. Its methods may be
// called from several goroutines.
type Filter struct {
	dir      pinDir
	home     string // the directory of this filter's own pins
	succeeds bool   // another one enforces until this has its policy
	log      *slog.Logger
	prog     *ebpf.Program
	tcx      *ebpf.Program  // nil until an interface wants it
	ledger   filterPrograms // those beside prog; none in a View
	maps     filterMaps
	spec     *ebpf.CollectionSpec

	mu      sync.Mutex    // serialises Sync, Attach and Detach
	offset  time.Duration // wall clock less CLOCK_BOOTTIME
	table   *table        // what the half in force holds; nil = not known
	indexer indexer
	refused map[int]refusal // by an interface's index
	closers []func() error
}

// Open makes the filter, or re-opens the pinned one and brings its program up
// to this build's. Where the pinned one's maps have another layout it goes on
// until the first Sync. Open holds the lock on the pins until Close. Errors wrap
// ErrBusy or ErrUnsupported where these are the cause.
func Open(o Options) (*Filter, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkKernel(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil { // kernels before 5.11
		return nil, fmt.Errorf("raise the memlock limit: %w", err)
	}
	f, err := newFilter(o.PinDir, o.Log)
	if err != nil {
		return nil, err
	}
	if o.PassageIdle > 0 {
		if err := f.spec.Variables[filterVarPassageIdleNs].Set(uint64(o.PassageIdle)); err != nil {
			return nil, fmt.Errorf("set how long a passage may be silent: %w", err)
		}
	}
	unlock, err := f.dir.lock()
	if err != nil {
		return nil, err
	}
	f.closers = append(f.closers, unlock)
	err = f.openOrCreate()
	if err == nil && !f.succeeds {
		err = f.keepLedger()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// View opens a pinned filter for reading, without the lock: for commands that
// must work while the agent is down. The error wraps ErrNotLoaded where nothing
// is pinned.
func View(dir string) (*Filter, error) {
	f, err := newFilter(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if !f.dir.loaded() {
		return nil, fmt.Errorf("%w in %s", ErrNotLoaded, dir)
	}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func newFilter(dir string, log *slog.Logger) (*Filter, error) {
	spec, err := loadFilter()
	if err != nil {
		return nil, err
	}
	adaptSpec(spec)
	return &Filter{dir: pinDir(dir), home: pinDir(dir).filterDir(), log: log, spec: spec, refused: map[int]refusal{}}, nil
}

func (f *Filter) openOrCreate() error {
	if !f.dir.loaded() {
		return f.create()
	}
	if err := f.open(); errors.Is(err, ErrOtherVersion) {
		return f.createBeside()
	} else if err != nil {
		return err
	}
	return f.upgrade()
}

// create loads a new filter and pins it, all or nothing.
func (f *Filter) create() error {
	objs := filterObjects{}
	if err := f.spec.LoadAndAssign(&objs, nil); err != nil {
		return fmt.Errorf("load the filter: %w", explainLoad(err))
	}
	f.prog, f.ledger, f.maps = objs.Synward, objs.filterPrograms, objs.filterMaps
	f.closers = append(f.closers, objs.Close)
	if err := f.begin(); err != nil {
		return err
	}
	if err := f.dir.stage(f.prog, f.byName()); err != nil {
		return err
	}
	return f.dir.commit()
}

// begin says in a new filter's maps whose they are.
func (f *Filter) begin() error {
	if err := f.maps.States.Put(uint32(0), filterState{Version: abiVersion, Build: build()}); err != nil {
		return fmt.Errorf("write the version: %w", err)
	}
	return nil
}

// open takes up what is pinned, and refuses what this build cannot read.
func (f *Filter) open() error {
	for name, target := range f.mapFields() {
		m, err := ebpf.LoadPinnedMap(f.dir.object(name), nil)
		if err != nil {
			return f.versionError(fmt.Sprintf("map %s: %v", name, err))
		}
		f.closers = append(f.closers, m.Close)
		if err := f.spec.Maps[name].Compatible(m); err != nil {
			return f.versionError(fmt.Sprintf("map %s: %v", name, err))
		}
		*target = m
	}
	prog, err := ebpf.LoadPinnedProgram(f.dir.object(programPin), nil)
	if err != nil {
		return f.versionError(fmt.Sprintf("program: %v", err))
	}
	f.prog = prog
	f.closers = append(f.closers, prog.Close)
	st, err := f.state()
	if err != nil {
		return err
	}
	if st.Version != abiVersion {
		return f.versionError(fmt.Sprintf("layout %d, this build has %d", st.Version, abiVersion))
	}
	return nil
}

func (f *Filter) versionError(why string) error {
	return fmt.Errorf("open %s: %w (%s): start this version's agent, which takes it over",
		f.dir, ErrOtherVersion, why)
}

// build tells objects apart: a hash of this build's. Program tags do not serve,
// they differ between loads of the same program.
func build() uint64 {
	sum := sha256.Sum256(slices.Concat(_FilterBytes, _TcxBytes))
	return binary.NativeEndian.Uint64(sum[:])
}

// upgrade puts this build's program in the place of the pinned one, link by
// link, where they differ. The maps stay.
func (f *Filter) upgrade() error {
	st, err := f.state()
	if err != nil {
		return err
	}
	var progs filterPrograms
	if err := f.spec.LoadAndAssign(&progs, &ebpf.CollectionOptions{MapReplacements: f.byName()}); err != nil {
		return fmt.Errorf("load the new filter (the old one goes on): %w", explainLoad(err))
	}
	f.closers = append(f.closers, progs.Close)
	f.ledger = progs
	if st.Build == build() {
		return nil
	}
	old, oldTCX := f.prog, f.pinnedTCX()
	f.prog = progs.Synward
	err = f.updateLinks()
	if err == nil {
		err = f.updateEgresses()
	}
	if err == nil {
		err = f.replacePrograms()
	}
	if err != nil {
		f.prog, f.tcx = old, oldTCX
		return errors.Join(fmt.Errorf("put the new program in place: %w", err), f.updateLinks())
	}
	f.log.Info("filter upgraded in place")
	st.Build = build()
	return f.maps.States.Put(uint32(0), st)
}

func (f *Filter) replacePrograms() error {
	if err := f.pinTCX(); err != nil {
		return err
	}
	return f.dir.replaceProgram(f.prog, programPin)
}

func (f *Filter) byName() map[string]*ebpf.Map {
	r := map[string]*ebpf.Map{}
	for name, m := range f.mapFields() {
		r[name] = *m
	}
	return r
}

// Close releases this process's hold. The kernel goes on enforcing.
func (f *Filter) Close() error {
	f.indexer.wg.Wait() // an index that is being built needs the maps
	var errs []error
	for i := len(f.closers) - 1; i >= 0; i-- {
		errs = append(errs, f.closers[i]())
	}
	f.closers = nil
	return errors.Join(errs...)
}

// Unload detaches the filter everywhere and removes its pins; done is false
// where there was nothing. The error wraps ErrBusy while an agent runs.
func Unload(dir string) (done bool, err error) {
	d := pinDir(dir)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	unlock, err := d.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	links, err := d.links()
	if err != nil {
		return false, err
	}
	for _, name := range links {
		if err := removeLink(filepath.Join(d.linkDir(), name)); err != nil {
			return done, fmt.Errorf("detach: %w", err)
		}
		done = true
	}
	if err := d.dropEgresses(); err != nil {
		return done, err
	}
	return d.removeAll() || done, os.Remove(dir)
}

func (f *Filter) state() (filterState, error) {
	var st filterState
	if err := f.maps.States.Lookup(uint32(0), &st); err != nil {
		return st, fmt.Errorf("read the filter's state: %w", err)
	}
	return st, nil
}

// mapFields names where each pinned map lives in f.
func (f *Filter) mapFields() map[string]**ebpf.Map {
	m := &f.maps
	return map[string]**ebpf.Map{
		filterMapBudget: &m.Budget, filterMapConfigs: &m.Configs, filterMapCounters: &m.Counters,
		filterMapRows: &m.Rows, filterMapEvents: &m.Events,
		filterMapMeters: &m.Meters, filterMapPrefixes4: &m.Prefixes4, filterMapPrefixes6: &m.Prefixes6,
		filterMapRecent: &m.Recent, filterMapRules: &m.Rules, filterMapStates: &m.States,
		filterMapIndexes: &m.Indexes, filterMapTouched4: &m.Touched4, filterMapTouched6: &m.Touched6,
		filterMapChunks4: &m.Chunks4, filterMapChunks6: &m.Chunks6,
		filterMapPages4: &m.Pages4, filterMapPages6: &m.Pages6,
		filterMapUsages: &m.Usages, filterMapTokens: &m.Tokens, filterMapAccounts: &m.Accounts,
		filterMapSweepers: &m.Sweepers, filterMapScratches: &m.Scratches,
		filterMapPassages: &m.Passages, filterMapHandshakes: &m.Handshakes,
		filterMapEgresses: &m.Egresses, filterMapPassageSweepers: &m.PassageSweepers,
	}
}

// Dir is the pin directory.
func (f *Filter) Dir() string { return string(f.dir) }
