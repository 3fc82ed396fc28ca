%% A genuine supervisor over calculators with given names.
-module(calculator_sup).
-behaviour(supervisor).
-export([start/2, stop/0, children/0]).
-export([init/1]).

%% Starts the supervisor, registered as calculator_sup, with one calculator for each name. At most five restarts in ten
%% seconds. It is unlinked from the caller, which may be a process that ends at once.
-spec start(one_for_one | one_for_all | rest_for_one, [atom()]) -> pid().
start(Strategy, Names) ->
    {ok, Pid} = supervisor:start_link({local, ?MODULE}, ?MODULE, {Strategy, Names}),
    unlink(Pid),
    Pid.

%% Ends the supervisor and all its calculators, and waits until they are gone.
-spec stop() -> ok.
stop() -> gen_server:stop(?MODULE, shutdown, 5000).

%% [{Name, Pid}] in the order of starting.
-spec children() -> [{atom(), pid()}].
children() -> [{Name, Pid} || {Name, Pid, _, _} <- lists:reverse(supervisor:which_children(?MODULE))].

init({Strategy, Names}) ->
    Flags = #{strategy => Strategy, intensity => 5, period => 10},
    {ok, {Flags, [#{id => Name, start => {calculator, start_link, [Name]}} || Name <- Names]}}.
