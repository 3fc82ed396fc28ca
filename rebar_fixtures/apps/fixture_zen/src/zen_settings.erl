%% The settings of the ZenMonitor stand-in, under the names and with the defaults of the original.
%%
%% They are kept in the application environment and read at every use, so `set` takes effect while the roles run.
%% An unknown name is an error. Milliseconds, counts and bytes as the names say.
-module(zen_settings).
-export([begin_role/1, set/2, get/1, fast/0]).

%% Called by a role that starts. All settings but Changes go back to their default, unless the other role is running on
%% this node: both share the settings, and those it was started with stay.
-spec begin_role(#{atom() => term()}) -> ok.
begin_role(Changes) ->
    case [Role || Role <- [zen_proxy_sup, zen_local_sup], whereis(Role) =/= undefined] of
        [] -> maps:foreach(fun set/2, maps:merge(defaults(), Changes));
        [_Running] -> maps:foreach(fun set/2, Changes)
    end.

-spec set(atom(), term()) -> ok.
set(Name, Value) ->
    case is_map_key(Name, defaults()) of
        true -> application:set_env(fixture_zen, Name, Value);
        false -> error({unknown_setting, Name, maps:keys(defaults())})
    end.

-spec get(atom()) -> term().
get(Name) ->
    case application:get_env(fixture_zen, Name) of
        {ok, Value} -> Value;
        undefined -> maps:get(Name, defaults())
    end.

%% For tests that are not about pacing: everything goes within a few milliseconds, and a slow machine may be late.
-spec fast() -> #{atom() => term()}.
fast() ->
    #{
        connector_sweep_interval => 5,
        batcher_sweep_interval => 5,
        demand_interval => 5,
        demand_amount => 100000,
        ping_timeout => 60000
    }.

defaults() ->
    #{
        connector_sweep_interval => 100,
        connector_chunk_size => 5000,
        batcher_sweep_interval => 100,
        batcher_chunk_size => 5000,
        demand_interval => 100,
        demand_amount => 1000,
        ping_timeout => 5000,
        %% Milliseconds: the penalty after the n-th failure in a row is this times 2^n.
        base_penalty => 1000,
        max_binary_size => 1024,
        truncation_depth => 3,
        %% What the Proxy answers a ping with: pong, {answer, AnyTerm}, or silent to make it answer nothing.
        ping_answer => pong,
        %% true keeps what arrives from the other node for zen_proxy:recorded/0 and zen_local:recorded/0.
        record => false
    }.
