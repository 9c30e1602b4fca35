//! The compiler, and what it has compiled: once a node, when a procedure is called there for the first time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use volt_engine::ProcedureId;
use volt_engine::error::StatementError;
use volt_engine::plan::StatementContext;
use volt_engine::procedure::{Body, Procedure, arguments_of};
use volt_engine::value::Value;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig,
};

use crate::call::Call;
use crate::host::{self, Host};
use crate::limits::{
    MAX_CALLS, MAX_COMPILED, MAX_COMPILED_BYTES, MAX_MEMORY_BYTES, MAX_TABLE_ELEMENTS, MODULE_STACK_BYTES, STACK_BYTES,
};
use crate::module::{self, Refused};

/// All modules of a node. Nothing is made before the first of them comes.
#[derive(Default)]
pub struct Modules {
    runtime: OnceLock<Result<Runtime, String>>,
    kept: Mutex<Kept>,
    /// Held by the one that compiles for a call: a thousand callers of a new procedure compile it once.
    compiling: Mutex<()>,
}

/// A module that can be run.
pub struct Compiled {
    pre: InstancePre<Host>,
    bytes: usize,
}

struct Runtime {
    engine: Engine,
    linker: Linker<Host>,
}

#[derive(Default)]
struct Kept {
    modules: BTreeMap<ProcedureId, (Arc<Compiled>, u64)>,
    /// Counts uses.
    clock: u64,
}

impl Modules {
    /// Checks a module that is to be a procedure: its SQL statements. Takes a while.
    pub fn check(&self, bytes: &[u8]) -> Result<Vec<String>, Refused> {
        let statements = module::statements(bytes)?;
        let runtime = self.runtime().map_err(Refused::invalid)?;
        runtime.compile(bytes)?;
        Ok(statements)
    }

    /// A procedure's module, if it has been compiled.
    pub fn get(&self, procedure: ProcedureId) -> Option<Arc<Compiled>> {
        self.kept().get(procedure)
    }

    /// A procedure's module, compiled now unless it has been: that takes a while.
    pub fn compiled(&self, procedure: &Procedure) -> Result<Arc<Compiled>, StatementError> {
        let _compiling = self.compiling.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(compiled) = self.get(procedure.id) {
            return Ok(compiled);
        }
        let broken = |reason: String| StatementError::Trapped {
            name: procedure.name.clone(),
            reason,
        };
        let Body::Module(bytes) = &procedure.body else {
            return Err(broken("it has no module".to_owned()));
        };
        let runtime = self.runtime().map_err(broken)?;
        let compiled = runtime.compile(bytes).map_err(|refused| broken(refused.message))?;
        let compiled = Arc::new(compiled);
        self.kept().keep(procedure.id, Arc::clone(&compiled));
        Ok(compiled)
    }

    /// Drops those of procedures that are no more.
    pub fn retain(&self, exists: impl Fn(ProcedureId) -> bool) {
        self.kept().modules.retain(|procedure, _| exists(*procedure));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn runtime(&self) -> Result<&Runtime, String> {
        let runtime = self
            .runtime
            .get_or_init(|| Runtime::new().map_err(|error| format!("{error:#}")));
        runtime.as_ref().map_err(Clone::clone)
    }
}

impl Compiled {
    /// Begins a call, with arguments as `arguments_of` takes them.
    pub fn start<'p>(
        &self,
        procedure: &'p Procedure,
        arguments: &[Value],
        context: &StatementContext,
    ) -> Result<Call<'p>, StatementError> {
        let arguments = arguments_of(procedure, arguments)?;
        Ok(Call::new(self.pre.clone(), procedure, &arguments, context))
    }
}

impl Kept {
    fn get(&mut self, procedure: ProcedureId) -> Option<Arc<Compiled>> {
        self.clock += 1;
        let (compiled, used) = self.modules.get_mut(&procedure)?;
        *used = self.clock;
        Some(Arc::clone(compiled))
    }

    /// Keeps one; those that were not used for longest go.
    fn keep(&mut self, procedure: ProcedureId, compiled: Arc<Compiled>) {
        self.clock += 1;
        self.modules.insert(procedure, (compiled, self.clock));
        while self.modules.len() > MAX_COMPILED || self.bytes() > MAX_COMPILED_BYTES {
            let oldest = self.modules.iter().min_by_key(|(_, (_, used))| *used);
            match oldest.map(|(oldest, _)| *oldest) {
                Some(oldest) if oldest != procedure => drop(self.modules.remove(&oldest)),
                _ => return,
            }
        }
    }

    fn bytes(&self) -> usize {
        self.modules.values().map(|(compiled, _)| compiled.bytes).sum()
    }
}

impl Runtime {
    fn new() -> wasmtime::Result<Self> {
        let engine = Engine::new(&config())?;
        let mut linker = Linker::new(&engine);
        host::link(&mut linker)?;
        Ok(Self { engine, linker })
    }

    fn compile(&self, bytes: &[u8]) -> Result<Compiled, Refused> {
        let module = Module::from_binary(&self.engine, bytes).map_err(|error| module::no_module(&error))?;
        module::check(&module, host::is_offered)?;
        let pre = self.linker.instantiate_pre(&module);
        Ok(Compiled {
            pre: pre.map_err(|error| Refused::invalid("an import has another type").detail(format!("{error:#}")))?,
            bytes: bytes.len(),
        })
    }
}

/// Everything that could make two runs differ is off; so are the process's signals, which are not ours to take.
fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(MAX_CALLS)
        .total_memories(MAX_CALLS)
        .total_tables(MAX_CALLS)
        .total_stacks(MAX_CALLS)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_memory_size(MAX_MEMORY_BYTES)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(MAX_MEMORY_BYTES as u64)
        .memory_guard_size(0)
        .guard_before_linear_memory(false)
        .signals_based_traps(false)
        .consume_fuel(true)
        .max_wasm_stack(MODULE_STACK_BYTES)
        .async_stack_size(STACK_BYTES)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    config
}
