//! What `--help` ends with: examples that can be pasted, and what a flag cannot say.

pub(super) const UP: &str = r#"Examples:
  tessera up
  tessera up --once                      bring it up, run the demo, stop: for scripts
  tessera up --data-dir /tmp/tessera --registry-port 0 --ticket-port 0 --user-port 0 --console-port 0

Each service answers /healthz and /metrics on its port + 2000. Logs are in DATA_DIR/logs.
Ctrl-C drains and stops it all."#;

pub(super) const DEMO: &str = r#"Examples:
  tessera demo                                   one buyer
  tessera demo --event "Paper Lanterns" --seats 4
  tessera demo --buyers 200 --concurrency 16     many buyers, with a summary

Exits 1 when a call failed, an order failed for another reason than sold out, or a seat was sold twice."#;

pub(super) const SERVICES: &str = r#"Examples:
  tessera services
  tessera services --output json | jq '.services[].service'"#;

pub(super) const INSTANCES: &str = r#"Examples:
  tessera instances
  tessera instances ticket-svc
  tessera instances ticket-svc --output json | jq -r '.instances[].address'"#;

pub(super) const WATCH: &str = r#"Examples:
  tessera watch ticket-svc
  tessera watch ticket-svc --output json

Ends with Ctrl-C. When the registry goes away it says so, and resumes where it was."#;

pub(super) const CALL: &str = r#"Examples:
  tessera call ticket-svc tessera.ticket.v1.TicketService/ListEvents '{}'
  tessera call user-svc tessera.user.v1.UserService/SignIn -d @me.json --output json | jq -r .sessionToken > my.token
  tessera call user-svc tessera.user.v1.UserService/GetUser '{"userId": "…"}' --bearer @my.token
  tessera call ticket-svc tessera.ticket.v1.TicketService/CreateEvent -d @event.json --bearer @my.token
  tessera call 127.0.0.1:7000 tessera.registry.v1.RegistryService/ListServices '{}'

Exits 0, or 64 + the gRPC code (69 for NOT_FOUND), so that scripts can tell errors apart."#;

pub(super) const HEALTHCHECK: &str = r#"Examples:
  tessera healthcheck 127.0.0.1:7000
  tessera healthcheck 127.0.0.1:7101 --service tessera.ticket.v1.TicketService

Exits 0 when it is SERVING, else 1 with the reason on one line: fit for HEALTHCHECK in a Dockerfile."#;

pub(super) const TOP: &str = r#"Examples:
  tessera top                                    live, until Ctrl-C
  tessera top ticket-svc --sort p99 --window 10m
  tessera top --once --output json | jq '.dependencies[] | [.caller, .callee, .rate]'

It shows whole points of 10 s; what was called just now is there some 15 s later."#;

pub(super) const STATS: &str = r#"Examples:
  tessera stats ticket-svc --since 1h
  tessera stats ticket-svc --since 7d --by method --by caller
  tessera stats ticket-svc --since 1h --output json | jq '.series[].total'

A caller's failures are all codes but OK; a provider's are those that it is to blame for."#;

pub(super) const CONSOLE: &str = r#"Examples:
  tessera console
  tessera console --listen :8090 --registry http://registry:7000 --data-dir /var/lib/tessera

One in a namespace. All roles report to it every 10 s; `tessera top` and `tessera stats` ask it."#;

pub(super) const DRAIN: &str = r#"Examples:
  tessera drain ticket-svc/ticket-2 --why "disk is failing"
  tessera drain ticket-svc/ticket-2 --until 2h       ends by itself
  tessera drain ticket-svc/ticket-2 --output json | jq '.unacknowledged_watch_ids'

It sticks: whoever registers under this name again is drained too, until `tessera undrain` or --until."#;

pub(super) const UNDRAIN: &str = r#"Example:
  tessera undrain ticket-svc/ticket-2 --why "disk was replaced""#;

pub(super) const WEIGHT: &str = r#"Examples:
  tessera weight ticket-svc/ticket-2 10
  tessera weight ticket-svc/ticket-2 1 --until 30m --why "warms up"
  tessera weight ticket-svc/ticket-2 own     back to what the instance says itself"#;

pub(super) const EXPLAIN: &str = r#"Examples:
  tessera explain ticket-svc/ticket-2
  tessera explain call ticket-svc                  whom a call would go to, and why
  tessera explain ticket-svc/ticket-2 --output json | jq '.steps[0]'

The registry tells what its history has (--history-len of the registry); what it has forgotten it does not invent."#;

pub(super) const EXPLAIN_CALL: &str = r#"Examples:
  tessera explain call ticket-svc
  tessera explain call ticket-svc tessera.ticket.v1.TicketService/ListEvents --header tessera-tag=gray
  tessera explain call ticket-svc --output json | jq '.instances[] | select(.removed) | .removed'

It looks as a caller that starts now, with nothing measured yet. What a running process sees, `tessera lb` tells."#;

pub(super) const LB: &str = r#"Examples:
  tessera lb ticket-svc                              as the user service on this machine sees it
  tessera lb --admin 10.0.0.7:9200                   all that this process calls
  tessera lb ticket-svc --output json | jq '.[].instances[] | {instance_id, in_flight, removed}'

It asks the process itself, at its admin port (--admin-listen of the role: its port + 2000), page /lb."#;

pub(super) const LOG_LEVEL: &str = r#"Examples:
  tessera log-level 127.0.0.1:9200                                      what the user service logs
  tessera log-level 127.0.0.1:9200 info,user_svc=debug --for 10m        more of it, for ten minutes
  tessera log-level 127.0.0.1:9000 --reset                              as it was started
  docker compose exec registry tessera log-level 127.0.0.1:9000 debug

Everybody who reaches the admin port may look; it is changed only from the machine or container itself."#;

pub(super) const BACKUP: &str = r#"Examples:
  tessera backup registry.backup                                   while it serves
  tessera backup registry.backup --registry http://10.0.0.7:7000
  tessera backup registry.backup --data-dir /var/lib/tessera       while it is stopped

The file is one revision, with its history and the hashes of the leases' secrets; it has its name once it is whole and
has been read back. A registry on etcd is backed up with `etcdctl snapshot save`."#;

pub(super) const RESTORE: &str = r#"Example:
  tessera restore registry.backup --data-dir /var/lib/tessera-new

The directory is a new registry's: watches that have seen more than the backup has are told to begin again. When it
starts, every lease has its full time, and nothing expires until the owners could all have renewed."#;

pub(super) const REGISTRY: &str = r#"Examples:
  tessera registry
  tessera registry --listen :7000 --tokens ./tessera-tokens.json --data-dir /var/lib/tessera
  tessera registry --listen :7000 --insecure --store etcd://etcd-1:2379,etcd-2:2379,etcd-3:2379
  TESSERA_LISTEN=127.0.0.1:7070 tessera registry"#;

pub(super) const TOKEN: &str = r#"Examples:
  tessera token issue --name ticket --scope read --scope register:default/ticket-svc > ticket.token
  tessera token issue --name ada --scope 'operate:*' --ttl 90d > ada.token
  tessera token list
  tessera token revoke abcdefghijkl
  tessera registry --tokens ./tessera-tokens.json
  tessera services --token @ticket.token

The file has hashes alone; a registry follows it within 2 s. docs/security.md says what each scope allows."#;

pub(super) const ACCOUNT: &str = r#"Examples:
  tessera account grant ada@example.org --role operator
  tessera account grant ada@example.org --role organiser --store ./tessera-data/users.db
  tessera account keys > identity-keys.json              for `tessera ticket --identity-keys`

Whoever can open the store needs no other permission; a user service may run on it meanwhile. Operators give roles to
others with UserService/SetRoles."#;

pub(super) const EVENTS: &str = r#"Examples:
  tessera events dead user-svc --bearer @my.token
  tessera events show user-svc 0198… --bearer @my.token
  tessera events replay user-svc 0198… --bearer @my.token
  tessera events replay ticket-svc --all --bearer @my.token
  tessera events drop user-svc 0198… --why "told by hand" --bearer @my.token

For operators. A dead letter holds the later events of its key back until it is replayed or dropped."#;

pub(super) const TICKET: &str = r#"Examples:
  tessera ticket --registry http://127.0.0.1:7000
  tessera ticket --listen 127.0.0.1:7102 --store ./tessera-data/tickets.db
  tessera ticket --listen :7101 --store postgres://tessera@db.internal/tickets
  tessera ticket --identity-keys ./identity-keys.json    knows callers without asking a user service"#;

pub(super) const USER: &str = r#"Examples:
  tessera user --registry http://127.0.0.1:7000
  tessera user --listen 127.0.0.1:7200 --store ./tessera-data/users.db
  tessera user --listen :7200 --store @/run/secrets/users-store"#;

pub(super) const AGENT: &str = r#"Examples:
  tessera agent --service pricing --endpoint 10.0.0.7:7300 -- ./pricing --port 7300
  tessera agent --service pages --endpoint 10.0.0.7:8080 --protocol http -- python3 -m http.server 8080
  tessera agent --service ledger --endpoint 10.0.0.9:7400 --probe tcp      runs elsewhere, by somebody else

The command is registered once a probe of the endpoint succeeds, DOWN when --probe-misses in a row fail, and UP again
with the next that succeeds. SIGTERM: DRAINING in the registry, callers acknowledge (--drain-linger), SIGTERM to the
command, SIGKILL after --drain-grace, gone from the registry. Nothing that the command started outlives it.

Exits with the command's code, 128 + the signal that killed it, 127 where there is no such program; 0 when the agent was
told to stop and the command did; 1 when it never got ready or the registry refuses it. The command's stdin is empty,
stdout and stderr are the agent's. It is not told the agent's TESSERA_… variables: some are secrets."#;

pub(super) const START: &str = r#"Start here:
  tessera up                    bring up the demo cluster on this machine
  tessera demo                  buy tickets on it
  tessera instances ticket-svc  see who serves

Every flag has an environment variable; the flag wins."#;

pub(super) const CERTS: &str = r#"Examples:
  tessera certs --out certs
  tessera certs --out certs --host registry.internal,10.0.0.7 --service billing-svc

Writes ca.crt and ca.key, and NAME.crt and NAME.key for each service and the operator. Run again, it issues anew: processes
that use the files follow them, without a restart. Keep ca.key away from the machines that serve: who has it can be anybody."#;

pub(super) const TICKET_CODE: &str = r#"Examples:
  tessera call ticket-svc tessera.ticket.v1.TicketService/GetTicketKeys '{}' > ticket-keys.json
  tessera ticket-code verify TSR1.…
  scanner | tessera ticket-code verify - --keys ticket-keys.json --event 6f1c2b1e-3f0a-4f7e-9c55-0d2b8f6f2a10

A good signature says that the ticket was sold, for this seat of this event. Whether it was refunded since, CheckTicket knows."#;
