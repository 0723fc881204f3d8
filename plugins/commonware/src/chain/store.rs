//! The ledger on disk: SQLite, one transaction per finalized block.
//!
//! It is derived from marshal's archive (see `chain/mod.rs`), so `synchronous = NORMAL` is enough: SQLite never tears a
//! transaction, a SIGKILL loses none, and what a power cut takes back is applied again from the archive.

use std::path::{Path, PathBuf};

use commonware_consensus::types::Height;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::fault::NodeFault;
use super::genesis::ChainSpec;
use super::ledger::{Account, Ledger};
use super::shared::Head;
use super::tx::Address;
use super::upgrade::Upgrades;
use super::{Hash, Sealed};

const SCHEMA: &str = "
    CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), genesis BLOB NOT NULL, height INTEGER NOT NULL, hash BLOB NOT NULL, timestamp INTEGER NOT NULL) STRICT;
    CREATE TABLE accounts (address BLOB PRIMARY KEY, balance INTEGER NOT NULL, nonce INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE txs (hash BLOB PRIMARY KEY, height INTEGER NOT NULL, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// The writer; one per home.
pub struct Store {
    db: Connection,
    path: PathBuf,
}

/// A reader of the transaction index beside the writer.
pub struct TxIndex {
    db: Connection,
}

impl Store {
    /// Opens or creates the database and gives the last applied state; `genesis` decides for a new one.
    pub fn open(path: &Path, genesis: &ChainSpec, upgrades: &Upgrades) -> Result<(Self, Head, Ledger), NodeFault> {
        let corrupt = |error| fault(path, &error);
        let mut store = Self { db: connect(path).map_err(corrupt)?, path: path.to_owned() };
        let version: i64 = store.db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(corrupt)?;
        match version {
            0 => store.create(genesis).map_err(corrupt)?,
            1 => {}
            other => {
                return Err(NodeFault::Corrupt {
                    path: path.to_owned(),
                    message: format!("version {other} of the database; this devchain knows version 1"),
                });
            }
        }
        let (head, ledger) = store.load(genesis, upgrades)?;
        Ok((store, head, ledger))
    }

    fn create(&mut self, genesis: &ChainSpec) -> rusqlite::Result<()> {
        let tx = self.db.transaction()?;
        tx.execute_batch(SCHEMA)?;
        let block = &genesis.block;
        tx.execute(
            "INSERT INTO head VALUES (1, ?1, 0, ?2, ?3)",
            params![genesis.hash.as_ref(), Hash::as_ref(&digest(block)), signed(block.inner().timestamp)],
        )?;
        for (address, account) in genesis.ledger.accounts() {
            put_account(&tx, address, account)?;
        }
        tx.commit()
    }

    fn load(&self, genesis: &ChainSpec, upgrades: &Upgrades) -> Result<(Head, Ledger), NodeFault> {
        let corrupt = |message: String| NodeFault::Corrupt { path: self.path.clone(), message };
        let (stored, height, hash, timestamp): (Vec<u8>, i64, Vec<u8>, i64) = self
            .db
            .query_row("SELECT genesis, height, hash, timestamp FROM head", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .map_err(|error| corrupt(error.to_string()))?;
        if stored != genesis.hash.as_ref() {
            return Err(NodeFault::WrongGenesis { path: self.path.clone(), stored: hex::encode(stored), given: genesis.hash.to_string() });
        }
        let mut ledger = self.load_ledger().map_err(|error| corrupt(error.to_string()))?;
        let head = unsigned(height);
        if let Some(plan) = upgrades.blocks(head) {
            return Err(NodeFault::UpgradeNeeded { name: plan.name, height: plan.height, head });
        }
        upgrades.applied(head).into_iter().for_each(|name| ledger.upgrade(name));
        let hash = super::decode::<Hash>(&hash).map_err(|_| corrupt("the head's hash is not 32 bytes".into()))?;
        let head = Head { height: head, hash, timestamp: unsigned(timestamp), state_root: ledger.root(), txs: 0 };
        Ok((head, ledger))
    }

    fn load_ledger(&self) -> rusqlite::Result<Ledger> {
        let mut query = self.db.prepare("SELECT address, balance, nonce FROM accounts")?;
        let rows = query.query_map([], |row| {
            let account = Account { balance: unsigned(row.get(1)?), nonce: unsigned(row.get(2)?) };
            Ok((Address(row.get(0)?), account))
        })?;
        Ok(Ledger::new(rows.collect::<rusqlite::Result<Vec<_>>>()?))
    }

    /// Records a finalized block whose transfers led to `ledger`.
    pub fn apply(&mut self, block: &Sealed, ledger: &Ledger) -> Result<(), NodeFault> {
        self.write(block, ledger).map_err(|error| fault(&self.path, &error))
    }

    fn write(&mut self, block: &Sealed, ledger: &Ledger) -> rusqlite::Result<()> {
        let tx = self.db.transaction()?;
        let height = signed(block.inner().height.get());
        for (position, transfer) in block.inner().txs.iter().enumerate() {
            for address in [&transfer.from, &transfer.to] {
                put_account(&tx, address, &ledger.account(address))?;
            }
            tx.prepare_cached("INSERT OR REPLACE INTO txs VALUES (?1, ?2, ?3)")?.execute(params![
                Hash::as_ref(&transfer.hash()),
                height,
                position as i64
            ])?;
        }
        tx.prepare_cached("UPDATE head SET height = ?1, hash = ?2, timestamp = ?3")?.execute(params![
            height,
            Hash::as_ref(&digest(block)),
            signed(block.inner().timestamp)
        ])?;
        tx.commit()
    }
}

impl TxIndex {
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        Ok(Self { db: connect(path)? })
    }

    /// Height and position of a finalized transfer.
    pub fn find(&self, hash: &Hash) -> rusqlite::Result<Option<(Height, usize)>> {
        self.db
            .prepare_cached("SELECT height, position FROM txs WHERE hash = ?1")?
            .query_row([hash.as_ref()], |row| Ok((Height::new(unsigned(row.get(0)?)), unsigned(row.get(1)?) as usize)))
            .optional()
    }
}

/// A disk that does not write is no corrupt state.
fn fault(path: &Path, error: &rusqlite::Error) -> NodeFault {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
    let (path, message) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(CannotOpen | DiskFull | ReadOnly | SystemIoFailure) => NodeFault::Disk { path, message },
        _ => NodeFault::Corrupt { path, message },
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(db)
}

fn put_account(db: &Connection, address: &Address, account: &Account) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO accounts VALUES (?1, ?2, ?3)")?.execute(params![
        address.0,
        signed(account.balance),
        signed(account.nonce)
    ])?;
    Ok(())
}

fn digest(block: &Sealed) -> Hash {
    use commonware_cryptography::Digestible as _;
    block.digest()
}

// SQLite has 64 signed bits: the bits are kept, the sign is not looked at.
fn signed(value: u64) -> i64 {
    value.cast_signed()
}

fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}
